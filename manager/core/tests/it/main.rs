//! Tests of the manager core through its public doors.
mod scheduler;
