//! Scenarios as text: lines that begin with `>` are events, the lines after each are the effects that it had.

mod managers;
mod random;
mod scenarios;
mod script;
