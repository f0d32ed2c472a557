//! Real containers, as root, from a root filesystem made of the host's static busybox.
//!
//! Each test has a directory and a cgroup parent of its own, and checks at its end that nothing of
//! them is left: no process, no cgroup, no mount.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adopt;
mod basics;
mod hostile;
mod isolation;
mod limits;
mod logs;
mod support;
