//! Join tokens: `SWMTKN-1-<SHA-256 of the root certificate, 50 base36 characters>-<secret, 25 base36 characters>`
//! (Docker's form). The digest proves the cluster to the joining node, the secret proves the node to the cluster.
//!
//! Parsing is strict: one text per token, so that a mangled paste is refused here and not by a distant manager.

use std::fmt;
use std::str::FromStr;

use ring::rand::SecureRandom;
use rustls::pki_types::CertificateDer;
use subtle::ConstantTimeEq;
use swarm_model::Id;

const PREFIX: &str = "SWMTKN-1-";
/// 36^50 is above 2^256.
const DIGEST_LENGTH: usize = 50;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// SHA-256 of a cluster's root certificate in DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootDigest([u8; 32]);

/// The secret half of a token: 128 random bits. It never shows in logs.
#[derive(Clone, Copy)]
pub struct JoinSecret(Id);

/// What an operator hands to a joining node.
#[derive(Clone, Copy)]
pub struct JoinToken {
    pub root: RootDigest,
    pub secret: JoinSecret,
}

/// Why a text is no join token. It never repeats the text, which may hold a valid secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    #[error("it does not begin with SWMTKN-1-; `swarmctl cluster join-token worker` on a manager prints it")]
    Prefix,
    #[error(
        "it is not complete: after SWMTKN-1- come 50 characters, a hyphen and 25 characters of 0-9 and a-z"
    )]
    Shape,
}

impl RootDigest {
    pub fn of(root: &CertificateDer<'_>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, root);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = self.0;
        let mut text = [b'0'; DIGEST_LENGTH];
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[usize::from(divide_by_36(&mut number))];
        }
        f.pad(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

impl FromStr for RootDigest {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        if text.len() != DIGEST_LENGTH {
            return Err(ParseTokenError::Shape);
        }
        text.bytes()
            .try_fold([0u8; 32], |number, byte| {
                let digit = DIGITS.iter().position(|known| *known == byte)?;
                times_36_plus(number, u16::try_from(digit).ok()?)
            })
            .map(Self)
            .ok_or(ParseTokenError::Shape)
    }
}

/// Long division of a big-endian number; the remainder.
fn divide_by_36(number: &mut [u8; 32]) -> u8 {
    let mut remainder = 0u16;
    for byte in number.iter_mut() {
        let value = remainder << 8 | u16::from(*byte);
        *byte = u8::try_from(value / 36).expect("a remainder below 36 keeps the quotient in a byte");
        remainder = value % 36;
    }
    u8::try_from(remainder).expect("below 36")
}

/// `None` where the result does not fit 256 bits.
fn times_36_plus(mut number: [u8; 32], digit: u16) -> Option<[u8; 32]> {
    let mut carry = digit;
    for byte in number.iter_mut().rev() {
        let value = u16::from(*byte) * 36 + carry;
        *byte = value.to_be_bytes()[1];
        carry = value >> 8;
    }
    (carry == 0).then_some(number)
}

impl JoinSecret {
    /// A fresh one from the operating system's generator.
    pub fn generate() -> Self {
        let mut bytes = [0; 16];
        ring::rand::SystemRandom::new().fill(&mut bytes).expect("the operating system has randomness");
        Self(Id::from_u128(u128::from_be_bytes(bytes)))
    }

    /// The 25 characters that a cluster stores.
    pub fn reveal(&self) -> String {
        self.0.to_string()
    }

    /// Compares in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.as_u128().to_be_bytes().ct_eq(&other.0.as_u128().to_be_bytes()).into()
    }
}

impl FromStr for JoinSecret {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        text.parse().map(Self).map_err(|_| ParseTokenError::Shape)
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(…)")
    }
}

impl JoinToken {
    /// The text for operators. Holds the secret.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}-{}", self.root, self.secret.reveal())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-…", self.root)
    }
}

impl FromStr for JoinToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let rest = text.strip_prefix(PREFIX).ok_or(ParseTokenError::Prefix)?;
        let (root, secret) = rest.split_once('-').ok_or(ParseTokenError::Shape)?;
        Ok(Self { root: root.parse()?, secret: secret.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(root: [u8; 32], secret: u128) -> JoinToken {
        JoinToken { root: RootDigest(root), secret: JoinSecret(Id::from_u128(secret)) }
    }

    #[test]
    fn tokens_round_trip_with_dockers_lengths() {
        for (root, secret) in [([0; 32], 0), ([0xff; 32], u128::MAX), ([7; 32], 36)] {
            let text = token(root, secret).reveal();
            assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
            let parsed: JoinToken = text.parse().unwrap();
            assert_eq!(parsed.root, RootDigest(root));
            assert!(parsed.secret.matches(&JoinSecret(Id::from_u128(secret))));
        }
    }

    #[test]
    fn what_is_not_exactly_a_token_is_refused() {
        let good = token([9; 32], 12345).reveal();
        let one_missing = &good[..good.len() - 1];
        let upper = good.to_uppercase();
        let spaced = format!("{good} ");
        let overflow = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        for bad in ["", "SWMTKN-1-", "SWMTKN-2-a-b", one_missing, &upper, &spaced, &overflow] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let token = token([1; 32], 77);
        assert!(!format!("{token:?} {:?}", token.secret).contains(&token.secret.reveal()));
        assert!(!JoinSecret::generate().matches(&JoinSecret::generate()));
    }
}
