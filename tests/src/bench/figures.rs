//! What is said about a number of measured times.

use std::time::Duration;

/// Times of one kind, in ascending order.
#[derive(Debug, Clone)]
pub struct Times(Vec<Duration>);

impl Times {
    /// `None` without any.
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        if times.is_empty() { None } else { Some(Self(times)) }
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn median_ms(&self) -> f64 {
        self.percentile_ms(50)
    }

    pub fn median_s(&self) -> f64 {
        self.median_ms().round() / 1e3
    }

    pub fn longest_s(&self) -> f64 {
        self.percentile_ms(100).round() / 1e3
    }

    /// The time that this many of a hundred do not exceed, by the nearest rank.
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        milliseconds(self.0[rank - 1])
    }
}

/// With two digits behind the point: below that, nothing repeats.
pub fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert!(Times::of(Vec::new()).is_none());
        let times = Times::of((1..=200).rev().map(Duration::from_millis).collect()).unwrap();
        assert_eq!([times.median_ms(), times.percentile_ms(99)], [100.0, 198.0]);
        assert_eq!([times.median_s(), times.longest_s()], [0.1, 0.2]);
        let one = Times::of(vec![Duration::from_micros(1_234)]).unwrap();
        assert_eq!([one.median_ms(), one.percentile_ms(99)], [1.23, 1.23]);
    }
}
