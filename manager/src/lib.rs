//! The manager's shell: everything of a manager that touches the world. The thinking is in `swarm-manager-core`.
#![forbid(unsafe_code)]

mod manager;

mod server;

mod authority;
mod images;
mod logs;
mod peers;

pub mod engine;

pub mod checkpoint;
pub mod log;

pub mod keys;

pub mod backup;
mod refound;

mod text;

pub use manager::{Bootstrap, Manager, ManagerConfig, ManagerError, put_leftovers_aside};
pub use swarm_manager_core::api::OwnState;

pub use refound::{RefoundError, recover};
pub use server::{Audience, Door, Guarded};
