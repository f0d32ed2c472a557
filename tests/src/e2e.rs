//! The multi-host harness: real `swarmd` and `swarmctl` processes, each node in a network namespace of its own.
//!
//! Everything a test makes carries the test's name and is removed when its [`Cluster`] is dropped, also after a panic.

mod cluster;
mod disk;
mod http;
mod image;
mod leaks;
mod process;
mod registry;
mod wait;

pub use cluster::{Cluster, Options, Output, TaskRow, unique_name};
pub use http::{get, get_from, try_get};
pub use image::{Archive, append, busybox_image, demo_image};
pub use leaks::cgroups_of;
pub use process::{binary, require_root, signal};
pub use registry::Registry;
pub use wait::eventually;
