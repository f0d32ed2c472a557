//! The orchestrator in a small world: text scenarios that an operator can read.

mod checks;
mod scenarios;
mod script;
mod spec;
mod world;
