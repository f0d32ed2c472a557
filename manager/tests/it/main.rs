//! A whole manager in this process: real disk, real sockets, real TLS; agents are played by the tests.
#![allow(clippy::unwrap_used, reason = "tests")]

mod access;
mod images;
mod joining;
mod logs;
mod recovery;
mod services;
mod space;
mod support;
