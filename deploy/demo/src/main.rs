//! The demo image's program: a small HTTP server that says where it runs, and a load generator that counts answers.
//!
//! Standard library and libc only, so that it links statically and is the whole image. Not part of the product.

mod load;
mod serve;

use std::process::ExitCode;

const USAGE: &str = "usage: swarm-demo serve [PORT]
       swarm-demo load HOST:PORT SECONDS [CONNECTIONS]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["serve"] => serve::run(80),
        ["serve", port] => number(port).and_then(serve::run),
        ["load", address, seconds] => number(seconds).and_then(|seconds| load::run(address, seconds, 4)),
        ["load", address, seconds, connections] => {
            number(seconds).and_then(|seconds| load::run(address, seconds, number(connections)?))
        }
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number\n{USAGE}"))
}
