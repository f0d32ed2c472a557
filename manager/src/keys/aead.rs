//! Authenticated encryption whose nonces cannot repeat: each message has a key of its own.
//!
//! A message's key is HMAC-SHA256 of 24 random bytes under the long-lived key, so neither a counter that a power cut or
//! a restored file sets back, nor the number of messages (2^96 before two salts are likely to meet), is of any concern.
//! The cipher is ChaCha20-Poly1305 with a constant nonce, as each key is used once.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

pub const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// What a sealed message is longer than the plain one.
pub const OVERHEAD: usize = SALT_BYTES + TAG_BYTES;

/// 256 random bits.
#[derive(Clone)]
pub struct Key {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    derive: hmac::Key,
}

impl Key {
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self { bytes: Zeroizing::new(bytes), derive: hmac::Key::new(hmac::HMAC_SHA256, &bytes) }
    }

    pub fn generate() -> Self {
        Self::new(random())
    }

    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// A key for another purpose: knowing one says nothing about the other.
    pub fn derive(&self, purpose: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.derive, purpose.as_bytes()).as_ref())
    }

    /// Salt, ciphertext, tag. `context` is not in it, and must be the same when it is opened.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let salt: [u8; SALT_BYTES] = random();
        let mut message = Vec::with_capacity(plain.len() + OVERHEAD);
        message.extend(salt);
        message.extend(plain);
        let (_, text) = message.split_at_mut(SALT_BYTES);
        let tag = self.of_message(&salt).seal_in_place_separate_tag(nonce(), Aad::from(context), text);
        message.extend(tag.expect("messages are far below 256 GiB").as_ref());
        message
    }

    /// `None`: it was sealed with another key or for another context, or changed since.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (salt, text) = sealed.split_first_chunk::<SALT_BYTES>()?;
        let mut text = text.to_vec();
        let plain = self.of_message(salt).open_in_place(nonce(), Aad::from(context), &mut text).ok()?.len();
        text.truncate(plain);
        Some(text)
    }

    fn of_message(&self, salt: &[u8; SALT_BYTES]) -> LessSafeKey {
        let key = hmac::sign(&self.derive, salt);
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).expect("both have 32 bytes"))
    }
}

/// From the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; ring::aead::NONCE_LEN])
}
