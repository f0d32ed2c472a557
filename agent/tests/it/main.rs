//! The agent against an in-process manager over real gRPC, with a fake node and, as root, with real containers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod containers;
mod host;
mod manager;
mod session;
