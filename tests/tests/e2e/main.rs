//! End-to-end tests: real daemons as hosts in network namespaces, real containers. They need root.

mod bad_input;
mod chaos;
mod crashes;
mod dev;
mod identity;
mod images;
mod limits;
mod main_job;
mod managers;
mod operations;
mod operators;
mod recovery;
mod run;
