//! `swarm-chaos`: faults on a cluster of real processes, under load. Exits 1 if one is not survived.

use clap::Parser;
use swarm_tests::chaos;

/// Strikes a cluster of three managers and two workers on this machine with faults, and checks what it does (root)
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    options: chaos::Options,
}

fn main() -> anyhow::Result<()> {
    let options = Arguments::parse().options;
    let survived = chaos::run(&options, |line| eprintln!("{line}"))?;
    println!(
        "{} faults survived: {} acknowledged writes, none lost; {} requests; slowest to be whole again: {:?}, {:.1} s",
        survived.faults,
        survived.writes,
        survived.requests,
        survived.slowest.0,
        survived.slowest.1.as_secs_f64(),
    );
    Ok(())
}
