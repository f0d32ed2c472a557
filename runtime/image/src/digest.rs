//! SHA-256 digests in their textual form `sha256:<64 lowercase hex digits>`.
//!
//! Other algorithms that the OCI specification registers are refused: no registry in use serves them, and a second
//! algorithm would double the ways in which two names can mean one blob.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const PREFIX: &str = "sha256:";
/// Hex digits of a SHA-256.
const HEX_LEN: usize = 64;

/// The SHA-256 of some content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The algorithm is missing or is not SHA-256.
    #[error("digest {text:?} does not start with `sha256:`, the only algorithm accepted")]
    Algorithm {
        /// The text, cut to a printable length.
        text: String,
    },
    /// What follows the algorithm is not 64 lowercase hex digits.
    #[error("digest {text:?} is not `sha256:` and 64 lowercase hexadecimal digits")]
    Hex {
        /// The text, cut to a printable length.
        text: String,
    },
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 hex digits, which are also the name of a blob in a store.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads what [`Digest::hex`] wrote.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        let lowercase = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 32];
        if text.len() != HEX_LEN || !lowercase || hex::decode_to_slice(text, &mut bytes).is_err() {
            return Err(DigestError::Hex { text: printable(text) });
        }
        Ok(Self(bytes))
    }
}

/// A digest that is being computed. ring's assembly needs half the time of the `sha2` crate on processors without SHA
/// instructions, and hashing is most of what importing and unpacking costs.
pub(crate) struct Hasher(ring::digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Digest(digest)
    }
}

/// At most 100 characters of an untrusted text, for an error message.
pub(crate) fn printable(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex =
            text.strip_prefix(PREFIX).ok_or_else(|| DigestError::Algorithm { text: printable(text) })?;
        Self::from_hex(hex).map_err(|_| DigestError::Hex { text: printable(text) })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_round_trips() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn anything_else_is_refused() {
        let upper = EMPTY.replace('e', "E");
        for text in ["", "sha256:", "sha512:00", &EMPTY[7..], &EMPTY[..70], &format!("{EMPTY}0"), &upper] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }
}
