//! What happened, for whoever has to understand a failure: the last lines are kept, all go into one digest, by which two
//! runs of a seed are compared.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use swarm_model::Timestamp;

/// Lines kept of a run that is not told as it happens.
const KEPT: usize = 60;

#[derive(Debug, Default)]
pub struct Story {
    lines: VecDeque<String>,
    /// Print every line at once.
    aloud: bool,
    digest: std::hash::DefaultHasher,
}

impl Story {
    pub fn new(aloud: bool) -> Self {
        Self { aloud, ..Self::default() }
    }

    pub fn tell(&mut self, since_start: std::time::Duration, line: &str) {
        line.hash(&mut self.digest);
        let line = format!("{:>11.6} {line}", since_start.as_secs_f64());
        if self.aloud {
            println!("{line}");
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Notes that something happened without a word about it.
    pub fn count(&mut self, at: Timestamp, what: u64) {
        (at, what).hash(&mut self.digest);
    }

    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub fn last_lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
