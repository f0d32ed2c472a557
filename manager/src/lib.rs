//! The manager's shell: everything of a manager that touches the world. The thinking is in `swarm-manager-core`.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod log;
