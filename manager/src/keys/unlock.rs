//! The unlock key: `SWMKEY-1-<32 random bytes in base64>`, Docker's form. Operators keep it; no disk has it in the clear.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::aead::{self, Key};

const PREFIX: &str = "SWMKEY-1-";

/// What unlocks the managers of a cluster.
#[derive(Clone)]
pub struct UnlockKey(Key);

/// Why a text is no unlock key. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseUnlockKeyError {
    #[error(
        "that is no unlock key: it begins with SWMKEY-1-; `swarmctl cluster unlock-key` on an unlocked manager prints it"
    )]
    Prefix,
    #[error("the unlock key is not complete: after SWMKEY-1- come 43 characters")]
    Shape,
}

impl UnlockKey {
    pub fn generate() -> Self {
        Self(Key::generate())
    }

    /// The text that operators keep.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD_NO_PAD.encode(self.0.bytes()))
    }

    /// Tells keys apart without telling anything about them: eight hexadecimal digits.
    pub fn id(&self) -> String {
        let digest = ring::hmac::sign(&self.0.derive("id"), b"");
        digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        self.0.seal(context, plain)
    }

    /// `None`: another key, another context, or changed since.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.open(context, sealed)
    }
}

impl FromStr for UnlockKey {
    type Err = ParseUnlockKeyError;

    fn from_str(text: &str) -> Result<Self, ParseUnlockKeyError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(ParseUnlockKeyError::Prefix)?;
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| ParseUnlockKeyError::Shape)?;
        let bytes: [u8; aead::KEY_BYTES] = bytes.try_into().map_err(|_| ParseUnlockKeyError::Shape)?;
        Ok(Self(Key::new(bytes)))
    }
}

/// Secrets do not appear in logs.
impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnlockKey({})", self.id())
    }
}
