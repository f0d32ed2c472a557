//! Wire <-> model. From the wire everything is checked; to the wire nothing can fail.

mod node;
mod object;
mod session;
mod spec;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use swarm_model::{SpecError, Timestamp};

pub use object::task_state_from_wire;
pub use session::FromAgent;

/// A message that no honest peer of this version sends, or a spec that was refused. The text goes to the caller.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("the message has no {0}")]
    Missing(&'static str),
    #[error("{field}: {value:?} is not valid")]
    Invalid { field: &'static str, value: String },
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// Longest piece of a bad value that is repeated to the caller.
const MAX_SHOWN: usize = 128;

pub(crate) fn invalid(field: &'static str, value: impl fmt::Display) -> ConvertError {
    ConvertError::Invalid { field, value: value.to_string().chars().take(MAX_SHOWN).collect() }
}

pub(crate) fn parse<T: FromStr>(field: &'static str, text: &str) -> Result<T, ConvertError> {
    text.parse().map_err(|_| invalid(field, text))
}

pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing(field))
}

/// An empty text stands for "absent".
pub(crate) fn nonempty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Zero stands for "none".
pub(crate) fn nonzero(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number != 0)
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Times cross the wire as microseconds since the epoch; 0 is "never".
pub(crate) fn time_or_zero(time: Option<Timestamp>) -> u64 {
    time.map_or(0, Timestamp::as_micros)
}

pub(crate) fn port(field: &'static str, number: u32) -> Result<u16, ConvertError> {
    u16::try_from(number).map_err(|_| invalid(field, number))
}

pub(crate) fn address_text(address: Option<Ipv4Addr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
