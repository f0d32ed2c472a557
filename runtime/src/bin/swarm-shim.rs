//! The shim as a program of its own, for programs that use the crate but cannot answer to `shim`
//! themselves: the crate's tests are one.

use std::env;

fn main() {
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|word| word == swarm_runtime::shim::ARGUMENT) {
        swarm_runtime::shim::main(args);
    }
    eprintln!("swarm-shim is started by the runtime, not by hand");
    std::process::exit(2);
}
