//! Signals by name or number, as people write them.

use std::fmt;
use std::str::FromStr;

/// A signal that a container can be sent: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

/// Neither the number nor the name of a signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a signal; write a number from 1 to 64 or a name such as SIGTERM or RTMIN+3")]
pub struct InvalidSignal(String);

/// First real-time signal as C libraries count it (the kernel's first two are theirs).
const RTMIN: i32 = 34;
/// Last real-time signal.
const RTMAX: i32 = 64;

/// Names of the classic signals; the number is the position plus one. x86_64 and aarch64 agree.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Signal {
    pub const KILL: Self = Self(9);
    pub const TERM: Self = Self(15);

    /// The signal with this number.
    ///
    /// # Errors
    /// Where it is not in 1 to 64.
    pub fn from_number(number: i32) -> Result<Self, InvalidSignal> {
        if (1..=RTMAX).contains(&number) { Ok(Self(number)) } else { Err(InvalidSignal(number.to_string())) }
    }

    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        let invalid = || InvalidSignal(text.chars().take(32).collect());
        if let Ok(number) = text.parse::<i32>() {
            return Self::from_number(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(index) = NAMES.iter().position(|known| *known == name) {
            let number = i32::try_from(index + 1).expect("31 names fit");
            return Ok(Self(number));
        }
        let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(""), _) => Some(RTMIN),
            (_, Some("")) => Some(RTMAX),
            (Some(offset), _) => {
                offset.strip_prefix('+').and_then(|n| n.parse::<u8>().ok()).map(|n| RTMIN + i32::from(n))
            }
            (_, Some(offset)) => {
                offset.strip_prefix('-').and_then(|n| n.parse::<u8>().ok()).map(|n| RTMAX - i32::from(n))
            }
            (None, None) => None,
        };
        number.filter(|n| (RTMIN..=RTMAX).contains(n)).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = usize::try_from(self.0 - 1).ok().and_then(|index| NAMES.get(index));
        match named {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<i32>) {
        assert_eq!(text.parse::<Signal>().ok().map(Signal::number), expect, "{text}");
    }

    #[test]
    fn names_and_numbers_are_read_as_people_write_them() {
        check("SIGTERM", Some(15));
        check("term", Some(15));
        check("9", Some(9));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        check("RTMAX-60", None);
        check("0", None);
        check("65", None);
        check("SIGNOPE", None);
        check("", None);
    }

    #[test]
    fn a_signal_is_shown_by_its_name() {
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!(Signal(40).to_string(), "40");
    }
}
