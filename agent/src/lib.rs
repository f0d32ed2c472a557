//! The agent of a node: it makes its host match what the managers assigned.
//!
//! [`Agent::start`] drives an `AgentCore` (the thinking, crate `swarm-agent-core`): it feeds it what happens and does
//! what it answers. What is done on the node goes through one seam, [`Executor`]: [`LocalExecutor`] runs real containers,
//! [`FakeExecutor`] none at all, for fleets of agents on one machine.
//!
//! - `session/`: the one stream to a manager;
//! - `logs/`: the output of containers, sent by calls of their own;
//! - `executor/`: operations on the node; `images/` and `container/` are its knowledge of images and of specs;
//! - `state/`: what is kept on disk, so that a restarted agent finds its containers again.
#![deny(unsafe_code)]

mod agent;
mod clock;
mod container;
mod description;
mod ended;
mod executor;
mod images;
mod listening;
mod logs;
mod managers;
mod session;
mod state;
mod text;

pub use agent::{Agent, AgentConfig, AgentStatus};
pub use description::describe;
pub use executor::{
    Answers, Executor, FakeExecutor, LocalConfig, LocalExecutor, LogLine, LogOptions, LogReader,
    NetworkOptions, OpenLocalError,
};
pub use images::OpenImagesError;
pub use managers::{Managers, UnreachableError};
pub use state::{StateError, StateStore};
pub use swarm_agent_core::{Connection, Link, Parallelism, fake::Delays};
