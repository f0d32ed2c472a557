//! The orchestrator in a small world: text scenarios that an operator can read, and random walks with invariants.

mod checks;
mod scenarios;
mod script;
mod spec;
mod walk;
mod world;
