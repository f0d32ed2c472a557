//! `sim`: runs the simulator. Exits 0 if everything held, 1 if something did not.

use std::process::ExitCode;

use clap::Parser;
use swarm_sim::campaign::{self, Report};
use swarm_sim::{Mutation, Outcome, run};

/// Runs whole clusters in one thread under one seed each, with faults, and checks what must hold.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Replay one seed, and tell what happens
    #[arg(long, conflicts_with_all = ["seeds", "forever", "mutations"])]
    seed: Option<u64>,
    /// Run a range of seeds, as `1..1000`
    #[arg(long, value_parser = parse_range)]
    seeds: Option<std::ops::Range<u64>>,
    /// Run seeds until one fails
    #[arg(long)]
    forever: bool,
    /// Prove that the checkers see: every deliberate bug must make a seed fail
    #[arg(long)]
    mutations: bool,
    /// With one deliberate bug
    #[arg(long, value_parser = parse_mutation)]
    mutation: Option<Mutation>,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Seeds that a deliberate bug may survive
    #[arg(long, default_value_t = 300)]
    most: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of a core is a violation, and is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let holds = match (arguments.seed, arguments.seeds, arguments.mutations, arguments.forever) {
        (Some(seed), ..) => replay(seed, arguments.mutation),
        (None, Some(range), ..) => tell(&campaign::seeds(range, arguments.jobs, arguments.mutation)),
        (None, None, true, _) => prove(arguments.most, arguments.jobs),
        (None, None, false, true) => forever(arguments.jobs, arguments.mutation),
        (None, None, false, false) => tell(&campaign::seeds(0..200, arguments.jobs, arguments.mutation)),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64, mutation: Option<Mutation>) -> bool {
    let outcome = run(seed, mutation, true);
    println!(
        "seed {seed}: {} happenings in {:.1} s of the cluster's time, {} log entries, {} answers, digest {:016x}",
        outcome.happenings,
        outcome.simulated.as_secs_f64(),
        outcome.entries,
        outcome.answers,
        outcome.digest
    );
    match &outcome.violation {
        Some(violation) => println!("VIOLATED {}: {}", violation.check, violation.text),
        None => println!("everything held"),
    }
    outcome.violation.is_none()
}

fn tell(report: &Report) -> bool {
    println!(
        "{} seeds in {:.1} s ({:.1} h of the clusters' time, {} log entries, {} answers)",
        report.runs,
        report.took.as_secs_f64(),
        report.simulated.as_secs_f64() / 3600.0,
        report.entries,
        report.answers
    );
    if let Some(failure) = &report.failure {
        tell_failure(failure);
    }
    report.failure.is_none()
}

fn tell_failure(failure: &Outcome) {
    for line in &failure.story {
        println!("{line}");
    }
    if let Some(violation) = &failure.violation {
        println!("seed {} VIOLATED {}: {}", failure.seed, violation.check, violation.text);
    }
    println!("replay it: cargo sim --seed {}", failure.seed);
}

fn forever(jobs: usize, mutation: Option<Mutation>) -> bool {
    const STRETCH: u64 = 1_000;
    // Other seeds than last time.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut first = now.as_secs() * 1_000;
    loop {
        if !tell(&campaign::seeds(first..first + STRETCH, jobs, mutation)) {
            return false;
        }
        first += STRETCH;
    }
}

fn prove(most: u64, jobs: usize) -> bool {
    let mut seen = 0;
    println!("{:<26} {:>6}  {:<20} WHAT IS WRONG", "MUTATION", "SEEDS", "CAUGHT BY");
    for mutation in Mutation::ALL {
        let found = campaign::mutate(*mutation, most, jobs);
        let (seeds, check) = match &found.caught {
            Some((seeds, check, _)) => (seeds.to_string(), *check),
            None => ("-".to_owned(), "NOT SEEN"),
        };
        seen += usize::from(found.caught.is_some());
        println!("{:<26} {seeds:>6}  {check:<20} {}", mutation.name(), mutation.describe());
    }
    println!("{seen} of {} deliberate bugs were seen within {most} seeds each", Mutation::ALL.len());
    seen == Mutation::ALL.len()
}

fn parse_range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parse = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a seed"));
    let (first, end) = text.split_once("..").ok_or("a range is written as 1..1000")?;
    let range: std::ops::Range<u64> = parse(first)?..parse(end)?;
    if range.is_empty() { Err("the range is empty".to_owned()) } else { Ok(range) }
}

fn parse_mutation(name: &str) -> Result<Mutation, String> {
    let found = Mutation::ALL.iter().find(|mutation| mutation.name().eq_ignore_ascii_case(name));
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = Mutation::ALL.iter().map(|mutation| mutation.name()).collect();
        format!("there is none; there are {}", names.join(", "))
    })
}
