//! What tests and benchmarks of the whole product are made of.
#![forbid(unsafe_code)]

pub mod bench;
pub mod chaos;
pub mod e2e;
pub mod load;
