//! The thinking of a manager: replicated store, Raft, admission, scheduling, orchestration, dispatch.
//!
//! A pure state machine: no I/O, async, clock, threads or global randomness. [`door`] is the only way in and out.
#![forbid(unsafe_code)]
#![warn(clippy::iter_over_hash_type)]

pub mod api;
pub mod door;
pub mod scheduler;

mod admission;

mod consensus;
mod dispatcher;
mod store;

mod addresses;
mod lookup;
mod randomness;
pub mod orchestrator;
