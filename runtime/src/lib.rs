//! Containers by the OCI runtime specification, one shim process each.
//!
//! A [`Runtime`] owns a directory and a cgroup parent. [`Runtime::start`] turns a
//! [`ContainerSpec`] into a running process: an overlay of the given layers, private
//! namespaces, cgroup limits, capabilities and a system call filter. A small
//! single-threaded shim (this same binary, see [`shim::main`]) is the parent of the container; it
//! keeps its output, reaps it and writes down how it ended, so the caller may be killed or
//! upgraded while containers run, and finds them again with [`Runtime::adopt`].
//!
//! The crate knows nothing of clusters, images or networks: layers come unpacked, a network
//! namespace comes as an open file descriptor. Everything is synchronous.

pub mod allocator;

mod spec;

mod container;
mod runtime;

mod launch;
pub mod shim;

pub mod logs;

mod capabilities;
mod cgroup;
mod error;
mod exit;
mod files;
mod process;
mod record;
mod remove;
mod signal;
mod sys;

pub use cgroup::CgroupError;
pub use container::{Container, Usage};
pub use error::{AdoptError, ContainerError, OpenError, RemoveError, StartError};
pub use exit::{Exit, Outcome};
pub use jiff::Timestamp;
pub use launch::Failure;
pub use runtime::{Found, FoundState, LogLimits, Runtime, RuntimeConfig};
pub use signal::{InvalidSignal, Signal};
pub use spec::{ContainerSpec, DEFAULT_PIDS_LIMIT, EtcFiles, InvalidSpec, Mount, Network, Resources, Ulimit};
