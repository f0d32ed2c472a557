//! `swarmd`: the daemon of a node. It starts, waits to be told `cluster init` or `cluster join` over its local socket,
//! and from then on runs the node's agent and, on managers, the manager.
//!
//! The same binary is the shim of each container (`swarmd shim`), and `swarmd dev` runs a throw-away cluster.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod daemon;
mod dev;
mod door;
mod node;
mod systemd;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use swarm_runtime::allocator::Allocator;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    // Before anything has threads: the shim is single-threaded and small.
    if std::env::args_os().nth(1).is_some_and(|first| first == "shim") {
        swarm_runtime::shim::main(std::env::args_os().skip(2));
    }
    ALLOCATOR.serve_daemon();
    let cli = Cli::parse();
    log_to_stderr(cli.log_json);
    let outcome = runtime().and_then(|runtime| match cli.command {
        None => runtime.block_on(daemon::run(cli.node)),
        Some(Command::Dev(args)) => runtime.block_on(dev::run(args)),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // Every container start and every blob is blocking work; the limits of the agent bound it far below this.
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(128).build()?)
}

fn log_to_stderr(json: bool) {
    let filter =
        EnvFilter::try_from_env("SWARM_LOG").unwrap_or_else(|_| EnvFilter::new("info,h2=warn,sled=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if json { builder.json().init() } else { builder.with_target(false).init() }
}
