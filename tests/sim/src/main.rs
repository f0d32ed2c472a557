//! `sim`: runs the simulator. Exits 0 if everything held, 1 if something did not.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use swarm_sim::campaign::{self, Catch, Report};
use swarm_sim::{Mutation, Outcome, Violation, run};

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
    /// Results as JSON, one line each
    #[arg(long, conflicts_with = "mutations")]
    json: bool,
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
    let run = |range| campaign::seeds(range, arguments.jobs, arguments.mutation, tell_progress);
    let tell = |report: &Report| if arguments.json { tell_as_json(report) } else { tell(report) };
    let holds = match (arguments.seed, arguments.seeds, arguments.mutations, arguments.forever) {
        (Some(seed), ..) => replay(seed, arguments.mutation, arguments.json),
        (None, Some(range), ..) => tell(&run(range)),
        (None, None, true, _) => prove(Mutation::ALL, arguments.most, arguments.jobs),
        (None, None, false, true) => forever(|range| tell(&run(range))),
        (None, None, false, false) => tell(&run(0..200)),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell_progress(runs: u64, took: Duration) {
    eprintln!("{runs} seeds held, {:.1} per second", per_second(runs, took));
}

fn per_second(runs: u64, took: Duration) -> f64 {
    runs as f64 / took.as_secs_f64().max(0.001)
}

fn replay(seed: u64, mutation: Option<Mutation>, json: bool) -> bool {
    let outcome = run(seed, mutation, !json);
    let violated = outcome.violation.as_ref();
    if json {
        let outcome = serde_json::json!({
            "seed": seed,
            "digest": format!("{:016x}", outcome.digest),
            "happenings": outcome.happenings,
            "simulated_s": outcome.simulated.as_secs_f64(),
            "violation": violated.map(|it| serde_json::json!({ "check": it.check, "text": it.text })),
        });
        println!("{outcome}");
        return violated.is_none();
    }
    println!(
        "seed {seed}: {} happenings in {:.1} s of the cluster's time, {} log entries, {} answers, digest {:016x}",
        outcome.happenings,
        outcome.simulated.as_secs_f64(),
        outcome.entries,
        outcome.answers,
        outcome.digest
    );
    match violated {
        Some(violation) => println!("VIOLATED {}: {}", violation.check, violation.text),
        None => println!("everything held"),
    }
    violated.is_none()
}

fn tell(report: &Report) -> bool {
    if let Some(failure) = &report.failure {
        tell_failure(failure);
    }
    println!(
        "{} seeds in {:.1} s, {:.1} per second ({:.1} h of the clusters' time, {} log entries, {} answers): {}",
        report.runs,
        report.took.as_secs_f64(),
        per_second(report.runs, report.took),
        report.simulated.as_secs_f64() / 3600.0,
        report.entries,
        report.answers,
        if report.failure.is_some() { "VIOLATED" } else { "everything held" }
    );
    report.failure.is_none()
}

fn tell_as_json(report: &Report) -> bool {
    let failure = report.failure.as_ref().map(|failure| {
        let violation = failure.violation.as_ref();
        serde_json::json!({
            "seed": failure.seed,
            "check": violation.map(|it| it.check),
            "text": violation.map(|it| &it.text),
            "replay": format!("cargo sim --seed {}", failure.seed),
        })
    });
    let report_json = serde_json::json!({
        "seeds": report.runs,
        "seconds": report.took.as_secs_f64(),
        "seeds_per_s": per_second(report.runs, report.took),
        "simulated_hours": report.simulated.as_secs_f64() / 3600.0,
        "log_entries": report.entries,
        "answers": report.answers,
        "failure": failure,
    });
    println!("{report_json}");
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

fn forever(holds: impl Fn(std::ops::Range<u64>) -> bool) -> bool {
    const STRETCH: u64 = 1_000;
    // Other seeds than last time.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut first = now.as_secs() * 1_000;
    while holds(first..first + STRETCH) {
        first += STRETCH;
    }
    false
}

fn prove(mutations: &[Mutation], most: u64, jobs: usize) -> bool {
    println!("{:<24} {:>4}  {:<20} WHAT IS WRONG", "DELIBERATE BUG", "SEED", "CAUGHT BY");
    let found = campaign::mutate(mutations, most, jobs, tell_catch);
    let seen = found.iter().filter(|catch| catch.caught.is_some()).count();
    println!("{seen} of {} deliberate bugs were seen within {most} seeds each", found.len());
    seen == found.len()
}

fn tell_catch(catch: &Catch) {
    let (name, what) = (catch.mutation.name(), catch.mutation.describe());
    match &catch.caught {
        Some(caught) => {
            let Violation { check, text } = &caught.violation;
            println!("{name:<24} {:>4}  {check:<20} {what}: {text}", caught.seed);
        }
        None => println!("{name:<24} {:>4}  {:<20} {what}", "-", "NOT SEEN"),
    }
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
