//! Other runtimes on the same files, started from the command line as they are meant to be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::host::{CPU_NANOS, Host, MEMORY_BYTES, PIDS};
use crate::bench::figures::Times;

/// In microseconds; the one that the containers beside it have.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// Another runtime.
#[derive(Debug)]
pub struct Reference {
    program: &'static str,
    bundle: PathBuf,
    /// Where it keeps its own state.
    state: PathBuf,
    times: Vec<Duration>,
    /// Why it cannot be measured.
    refusal: Option<String>,
}

impl Reference {
    pub fn prepare(program: &'static str, host: &Host) -> Self {
        let bundle = host.directory().join(program);
        let refusal = make_bundle(program, &bundle, &host.layer()).err().map(|error| format!("{error:#}"));
        let state = bundle.join("state");
        Self { program, bundle, state, times: Vec::new(), refusal }
    }

    pub fn program(&self) -> &'static str {
        self.program
    }

    /// Runs `true` in a container, from its call to its end. The first one does not count.
    pub fn run(&mut self, number: u32) {
        if self.refusal.is_some() {
            return;
        }
        let begin = Instant::now();
        let result = self.run_container(number);
        let took = begin.elapsed();
        match result {
            Ok(()) if number == 0 => {}
            Ok(()) => self.times.push(took),
            Err(error) => self.refusal = Some(format!("{error:#}")),
        }
    }

    fn run_container(&self, number: u32) -> anyhow::Result<()> {
        let name = format!("swarm-bench-{}-{number}", std::process::id());
        let mut command = Command::new(self.program);
        command.arg("--root").arg(&self.state).arg("run").arg("--bundle").arg(&self.bundle).arg(name);
        let output = command.stdin(Stdio::null()).output().context("it does not start")?;
        succeeded(&output)
    }

    /// The reason where it could not be measured.
    pub fn times(&self) -> Result<Times, String> {
        match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Times::of(self.times.clone()).ok_or_else(|| "not run".to_owned()),
        }
    }
}

/// The runtime's own default specification, with the limits of the containers beside it.
fn make_bundle(program: &str, bundle: &Path, layer: &Path) -> anyhow::Result<()> {
    fs::create_dir(bundle)?;
    let output = Command::new(program).arg("spec").current_dir(bundle).output().context("not installed")?;
    succeeded(&output)?;
    let path = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["true"]);
    spec["root"]["path"] = json!(layer);
    let quota = CPU_NANOS / 1_000 * CPU_PERIOD_MICROS / 1_000_000;
    spec["linux"]["resources"]["memory"] = json!({ "limit": MEMORY_BYTES });
    spec["linux"]["resources"]["cpu"] = json!({ "period": CPU_PERIOD_MICROS, "quota": quota });
    spec["linux"]["resources"]["pids"] = json!({ "limit": PIDS });
    Ok(fs::write(path, serde_json::to_vec(&spec)?)?)
}

fn succeeded(output: &Output) -> anyhow::Result<()> {
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", output.status, words.lines().next().unwrap_or_default());
    Ok(())
}
