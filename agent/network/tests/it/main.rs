//! The data path with real packets: three nodes, a client behind a router, tasks in their namespaces.
//!
//! Every test runs in a network namespace of its own, which is the router; nothing of the machine's own is touched.

#![allow(clippy::unwrap_used, reason = "a test stops at its first surprise")]

mod guard;
mod lifecycle;
mod mesh;
mod world;
