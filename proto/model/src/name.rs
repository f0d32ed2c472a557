//! Names of services and what follows the same rule.

/// Longest name of a service, so that it is a DNS label.
const MAX_LENGTH: usize = 63;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name must not be empty")]
    Empty,
    #[error("name {0:?} is longer than 63 characters")]
    TooLong(String),
    #[error(
        "name {0:?} is not valid: use letters, digits, '-' and '_', and begin and end with a letter or a digit"
    )]
    Invalid(String),
}

/// Checks a service name: `^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`, 1 to 63 characters (SwarmKit's rule).
pub fn service_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_LENGTH {
        return Err(NameError::TooLong(name.chars().take(MAX_LENGTH + 1).collect()));
    }
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if edge(name.chars().next()) && edge(name.chars().next_back()) && name.chars().all(inside) {
        Ok(())
    } else {
        Err(NameError::Invalid(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_swarms_rule() {
        for good in ["a", "web", "a--b", "a_b-c9", &"x".repeat(63)] {
            assert_eq!(service_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "a b", "é", &"x".repeat(64)] {
            assert!(service_name(bad).is_err(), "{bad}");
        }
    }
}
