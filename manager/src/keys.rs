//! The keys that protect a manager's disk.
//!
//! Everything of the cluster's state is written encrypted with the manager's *data key*, which is its own and never
//! leaves it. The data key lies in a file beside the state; with autolock it lies there wrapped with the cluster's
//! *unlock key*, which is replicated and on no disk in the clear. The private key of a manager's certificate is wrapped
//! with the data key, so one file decides whether a disk yields anything.

mod aead;
mod data;
mod file;
mod unlock;

pub use aead::OVERHEAD;
pub use data::{DataKey, NAME_BYTES};
pub use file::{KeyError, Keyring, Locked, Opened};
pub use unlock::{ParseUnlockKeyError, UnlockKey};

#[cfg(test)]
mod tests;
