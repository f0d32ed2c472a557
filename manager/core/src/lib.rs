//! The thinking of a manager: replicated store, Raft, admission, scheduling, orchestration, dispatch.
//!
//! A pure state machine: no I/O, async, clock, threads or global randomness. [`door`] is the only way in and out.
#![forbid(unsafe_code)]
#![warn(clippy::iter_over_hash_type)]

pub mod api;
pub mod door;

mod core;

mod admission;
mod leader;
mod members;
pub mod orchestrator;
pub mod scheduler;

pub mod recovery;

mod consensus;
mod dispatcher;
mod store;

mod addresses;
mod lookup;
mod randomness;
mod views;
mod watch;

pub use core::{FULL_GROUP, ManagerCore, Replica, StartError};
pub use members::first_raft_id;
