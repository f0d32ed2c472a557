//! Netlink as this crate needs it: messages, sockets and the requests of rtnetlink.
//!
//! Messages are encoded here by hand: three kernel subsystems (routing, nf_tables, conntrack) share one small encoder,
//! where a typed library would need a crate per subsystem and has none for nf_tables maps. Sockets stay open and are
//! synchronous: the kernel answers before `send` returns, so a wait is never more than a failed machine.

pub mod link;
pub mod message;
pub mod route;
mod socket;

pub use message::{Attribute, Attributes, Batch};
pub use socket::{NetlinkError, Socket, Subsystem};
