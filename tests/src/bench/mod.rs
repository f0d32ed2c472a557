//! Benchmarks of `swarm-bench`, one module each. A benchmark checks its own results and fails if they are wrong.

mod calls;
pub mod commit;
pub mod failover;
pub mod fleet;
pub mod node_loss;
pub mod scheduler;
pub mod start;
pub mod store;
pub mod submit;

pub mod figures;
pub mod managers;
pub mod operator;
pub mod process;

use comfy_table::{Table, presets};
use serde_json::{Map, Value};

/// What a benchmark found: a table for people, and figures by name for machines.
#[derive(Debug)]
pub struct Report {
    pub table: Table,
    pub figures: Map<String, Value>,
}

impl Report {
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(columns);
        Self { table, figures: Map::new() }
    }

    /// A line of a table of three columns: what was measured, how much it is, and of how many.
    pub fn row(&mut self, what: &str, figure: String, of: String) {
        self.table.add_row([what.to_owned(), figure, of]);
    }

    pub fn figure(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.figures.insert(name.into(), value.into());
    }
}
