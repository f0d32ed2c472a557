//! The leader's side of the agents' sessions: who is there, what was observed, what each agent is sent.
//!
//! Lives from the start of a leadership to its end and is rebuilt from the agents' reports by the next leader. It decides
//! nothing about tasks: it tells the leader loop what was seen, and sends what the store says.

mod assignments;
mod fleet;
mod gates;
mod mesh;
mod observations;
#[cfg(test)]
mod tests;

pub(crate) use assignments::Assignments;
pub(crate) use fleet::{Fleet, heartbeat_interval, return_time};
pub(crate) use gates::Gates;
pub(crate) use mesh::Mesh;
pub(crate) use observations::{Observations, Seen};
