//! Identifiers: 128 random bits, shown as 25 characters of base36 (SwarmKit's form, so any habit and script holds).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Length of an id in its text form. 36^25 is just above 2^128.
const TEXT_LENGTH: usize = 25;
/// Digits that are made at a time, because 36^12 fits 64 bits: dividing 128 bits is slow.
const PIECE_LENGTH: usize = 12;
const PIECE: u128 = 36u128.pow(PIECE_LENGTH as u32);
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A random 128-bit identifier. Made by the caller's random generator; ordered by value, which is the order of its text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u128);

/// The text is not the id of anything: 25 characters of `0-9a-z` that fit 128 bits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id (25 characters of 0-9 and a-z)")]
pub struct ParseIdError(pub String);

impl Id {
    pub const fn from_u128(value: u128) -> Self {
        Self(value)
    }

    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; TEXT_LENGTH];
        let mut rest = self.0;
        for piece in text.rchunks_mut(PIECE_LENGTH) {
            let mut number = u64::try_from(rest % PIECE).expect("below 36^12");
            rest /= PIECE;
            for digit in piece.iter_mut().rev() {
                *digit = DIGITS[(number % 36) as usize];
                number /= 36;
            }
        }
        f.pad(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let refuse = || ParseIdError(text.chars().take(64).collect());
        if text.len() != TEXT_LENGTH {
            return Err(refuse());
        }
        text.bytes()
            .try_fold(0u128, |value, byte| {
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    b'a'..=b'z' => byte - b'a' + 10,
                    _ => return None,
                };
                value.checked_mul(36)?.checked_add(digit.into())
            })
            .map(Self)
            .ok_or_else(refuse)
    }
}

/// Text for people (JSON, TOML), 16 big-endian bytes in compact encodings.
impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.0.to_be_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(IdVisitor)
        } else {
            deserializer.deserialize_bytes(IdVisitor)
        }
    }
}

struct IdVisitor;

impl de::Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id: 25 base36 characters or 16 bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Id, E> {
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
        Ok(Id(u128::from_be_bytes(bytes)))
    }
}

macro_rules! id_newtype {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Id);

        impl $name {
            pub const fn from_u128(value: u128) -> Self {
                Self(Id::from_u128(value))
            }

            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse().map(Self)
            }
        }
    )*};
}

id_newtype! {
    /// A cluster, from `cluster init` to its end.
    ClusterId;
    /// A node's membership. A node that leaves and joins again is another node.
    NodeId;
    /// A service.
    ServiceId;
    /// A task: one attempt to run one slot on one node.
    TaskId;
    /// An operator's account.
    OperatorId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_keeps_order() {
        for value in [0, 1, 35, 36, u128::MAX / 3, u128::MAX] {
            let id = Id::from_u128(value);
            let text = id.to_string();
            assert_eq!(text.len(), TEXT_LENGTH);
            assert_eq!(text.parse(), Ok(id));
        }
        assert!(Id::from_u128(35).to_string() < Id::from_u128(36).to_string());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in
            ["", "abc", "zzzzzzzzzzzzzzzzzzzzzzzzz", "ABCDEFGHIJKLMNOPQRSTUVWXY", "é234567890123456789012345"]
        {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
