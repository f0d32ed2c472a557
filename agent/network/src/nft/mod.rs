//! nf_tables: tables, chains, rules, sets and their elements, written to and read from the kernel.
//!
//! Knows the format of the kernel's interface, not what our tables are for. Rules are built from expressions
//! ([`expression`], [`phrase`]), put into tables ([`table`]) and sent in a [`Transaction`], which the kernel takes whole or not at all.

pub mod expression;
pub mod phrase;
pub mod read;
pub mod table;
mod transaction;

pub use expression::{Expression, Verdict};
pub use table::{Chain, Element, Family, Field, Rule, Set, SetValue, Table};
pub use transaction::Transaction;
