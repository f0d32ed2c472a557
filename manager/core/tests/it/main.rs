//! The crate from outside: the scheduler's scenarios, and whole clusters in one thread under one seed.

mod checks;
mod identity;
mod leadership;
mod lifecycle;
mod members;
mod recovery;
mod scheduler;
mod sim;
