//! The scheduler: scenarios in text, and random histories against a slow scheduler that scans everything.
mod random;
mod reference;
mod scenario;
