//! The thinking half of a node's agent: assignments in, operations and reports out.
//!
//! [`AgentCore`] is a state machine without clock, files, sockets or threads. Whoever drives it (the daemon's shell, the
//! simulator, a test) hands it a batch of [`Event`]s, ends the batch with [`Event::Wakeup`], does the [`Effect`]s in
//! their order, and comes back at [`AgentCore::next_wakeup`] at the latest.
//!
//! What holds whatever happens:
//! - a task's reported state only rises;
//! - a task is started at most once, and never again after it ended: a replacement is another task;
//! - nothing is removed because a list does not name it before a manager of the node's own cluster sent that list;
//! - an instruction of a leader older than one already heard is never obeyed;
//! - without a manager everything keeps running.
#![forbid(unsafe_code)]

mod agent;
mod door;
pub mod fake;
mod lane;
mod link;
mod mesh;
mod outcome;
mod report;
mod table;
mod task;
mod timer;

pub use agent::AgentCore;
pub use door::{
    Change, Closed, Config, Effect, Event, Exit, Found, ImageRefKey, NodeRecord, Operation, Parallelism,
    Place, PrepareFailure, Recovered, SessionId, TaskRecord,
};
pub use link::{Connection, Link};
pub use mesh::Mesh;
