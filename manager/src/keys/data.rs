//! The data key: what a manager's own disk is encrypted with.

use std::fmt;
use std::sync::Arc;

use ring::hmac;

use super::aead::{self, Key};

/// Bytes of a name that stands in for an object's key.
pub const NAME_BYTES: usize = 16;

/// A manager's data key. Clones are the same.
#[derive(Clone)]
pub struct DataKey(Arc<Keys>);

struct Keys {
    key: Key,
    names: hmac::Key,
}

impl DataKey {
    pub fn generate() -> Self {
        Self::new(aead::random())
    }

    pub(super) fn new(bytes: [u8; aead::KEY_BYTES]) -> Self {
        let key = Key::new(bytes);
        Self(Arc::new(Keys { names: key.derive("names"), key }))
    }

    pub(super) fn bytes(&self) -> &[u8; aead::KEY_BYTES] {
        self.0.key.bytes()
    }

    /// Encrypts; [`super::OVERHEAD`] bytes longer. What is sealed for one context opens in no other.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        self.0.key.seal(context, plain)
    }

    /// `None`: sealed with another key or for another context, or changed since.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.key.open(context, sealed)
    }

    /// A name that tells nothing: the same for the same text.
    pub fn name(&self, text: &[u8]) -> [u8; NAME_BYTES] {
        let name = hmac::sign(&self.0.names, text);
        *name.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
    }
}

/// Secrets do not appear in logs.
impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}
