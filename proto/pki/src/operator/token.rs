//! Operator tokens: as join tokens, but that they begin with `SWMOP-1-`, can be used once, and not for long.

use std::fmt;
use std::str::FromStr;

use crate::token::{JoinSecret, RootDigest};

const PREFIX: &str = "SWMOP-1-";

/// What an admin hands to an operator.
#[derive(Clone, Copy)]
pub struct OperatorToken {
    pub root: RootDigest,
    pub secret: JoinSecret,
}

/// Why a text is no operator token. It never repeats the text, which may hold a valid secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseOperatorTokenError {
    #[error("it does not begin with {PREFIX}; `swarmctl cluster operator-token` on a manager makes one")]
    Prefix,
    #[error("it is for nodes; `swarmctl cluster operator-token` on a manager makes one for operators")]
    ForNodes,
    #[error(
        "it is not complete: after {PREFIX} come 50 characters, a hyphen and 25 characters of 0-9 and a-z"
    )]
    Shape,
}

impl OperatorToken {
    /// The text for the operator. Holds the secret.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}-{}", self.root, self.secret.reveal())
    }
}

impl fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-…", self.root)
    }
}

impl FromStr for OperatorToken {
    type Err = ParseOperatorTokenError;

    fn from_str(text: &str) -> Result<Self, ParseOperatorTokenError> {
        use ParseOperatorTokenError::{ForNodes, Prefix, Shape};
        let other = if text.starts_with("SWMTKN-") { ForNodes } else { Prefix };
        let rest = text.strip_prefix(PREFIX).ok_or(other)?;
        let (root, secret) = rest.split_once('-').ok_or(Shape)?;
        Ok(Self { root: root.parse().map_err(|_| Shape)?, secret: secret.parse().map_err(|_| Shape)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_node_tokens_are_told_apart() {
        let secret = JoinSecret::generate();
        let text = format!("SWMOP-1-{}-{}", "1".repeat(50), secret.reveal());
        let token: OperatorToken = text.parse().unwrap();
        assert_eq!(token.reveal(), text);
        assert!(!format!("{token:?}").contains(&secret.reveal()));
        let bad = |text: &str| text.parse::<OperatorToken>().unwrap_err();
        assert_eq!(bad(&text.replace("SWMOP", "SWMTKN")), ParseOperatorTokenError::ForNodes);
        assert_eq!(bad(&text[..text.len() - 1]), ParseOperatorTokenError::Shape);
        assert_eq!(bad("alice"), ParseOperatorTokenError::Prefix);
    }
}
