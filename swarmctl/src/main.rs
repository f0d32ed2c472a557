//! `swarmctl`: the operator's command line. Talks to a manager over gRPC; holds no state but contexts.
//!
//! Data goes to stdout, progress and errors to stderr. Exit codes are in [`failure::Code`].
#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod context;
mod failure;
mod flags;
mod output;
mod parse;
mod progress;
mod renewal;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&failure::Failure::failed(format!("cannot start: {error}"))),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &failure::Failure) -> ExitCode {
    // A reader that went away (`| head`) is no error of ours.
    if !failure.is_broken_pipe() {
        eprintln!("{failure}");
    }
    failure.code.into()
}

fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { failure::Code::Usage.into() } else { ExitCode::SUCCESS }
}
