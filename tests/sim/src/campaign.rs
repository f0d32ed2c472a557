//! Many runs: ranges of seeds on several threads, seeds that once failed, and the proof that the checkers see.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Mutation, Outcome, Violation, run};

/// What a range of seeds came to.
#[derive(Debug)]
pub struct Report {
    pub runs: u64,
    pub took: Duration,
    pub simulated: Duration,
    pub entries: u64,
    pub answers: u64,
    /// Of the runs that ended, the one of the lowest seed that failed.
    pub failure: Option<Outcome>,
}

/// Between two words of how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Runs the seeds until one fails. `progress` hears every few seconds of how many have run, and for how long.
pub fn seeds(
    range: std::ops::Range<u64>,
    jobs: usize,
    mutation: Option<Mutation>,
    progress: impl Fn(u64, Duration) + Sync,
) -> Report {
    let started = Instant::now();
    let next = AtomicU64::new(range.start);
    let told = Mutex::new(started);
    let report = Mutex::new(Report {
        runs: 0,
        took: Duration::ZERO,
        simulated: Duration::ZERO,
        entries: 0,
        answers: 0,
        failure: None,
    });
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let failed = |report: &Report| report.failure.as_ref().is_some_and(|it| it.seed < seed);
                    if seed >= range.end || report.lock().is_ok_and(|report| failed(&report)) {
                        return;
                    }
                    let outcome = run(seed, mutation, false);
                    let Ok(mut report) = report.lock() else { return };
                    report.add(outcome);
                    let Ok(mut told) = told.lock() else { return };
                    if told.elapsed() >= PROGRESS {
                        *told = Instant::now();
                        progress(report.runs, started.elapsed());
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().expect("no thread panics: runs catch");
    report.took = started.elapsed();
    report
}

impl Report {
    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.simulated += outcome.simulated;
        self.entries += outcome.entries;
        self.answers += outcome.answers;
        let lower = self.failure.as_ref().is_none_or(|failure| outcome.seed < failure.seed);
        if outcome.violation.is_some() && lower {
            self.failure = Some(outcome);
        }
    }
}

/// A seed that failed once, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSeed {
    pub seed: u64,
    pub cause: String,
}

/// Reads `seed cause …` per line; `#` begins a comment.
///
/// # Errors
/// The line that does not begin with a number.
pub fn kept_seeds(text: &str) -> Result<Vec<KeptSeed>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (seed, cause) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let seed = seed.parse().map_err(|_| format!("{line:?} does not begin with a seed"))?;
            Ok(KeptSeed { seed, cause: cause.trim().to_owned() })
        })
        .collect()
}

/// How long a deliberate bug stayed unseen.
#[derive(Debug)]
pub struct Catch {
    pub mutation: Mutation,
    /// `None`: it was not seen.
    pub caught: Option<Caught>,
}

/// What gave a deliberate bug away.
#[derive(Debug)]
pub struct Caught {
    /// The seed that failed with the bug, and holds without.
    pub seed: u64,
    pub violation: Violation,
}

/// Runs each deliberate bug under the first seeds, until one fails that holds without the bug. `done` hears of each as
/// it is known.
pub fn mutate(mutations: &[Mutation], most: u64, jobs: usize, done: impl Fn(&Catch) + Sync) -> Vec<Catch> {
    let next = AtomicUsize::new(0);
    let catches = Mutex::new(BTreeMap::new());
    let clean = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutation) = mutations.get(number) else { return };
                    let catch = Catch { mutation: *mutation, caught: hunt(*mutation, most, &clean) };
                    done(&catch);
                    let Ok(mut catches) = catches.lock() else { return };
                    catches.insert(number, catch);
                }
            });
        }
    });
    catches.into_inner().expect("no thread panics: runs catch").into_values().collect()
}

fn hunt(mutation: Mutation, most: u64, clean: &Mutex<BTreeMap<u64, bool>>) -> Option<Caught> {
    (1..=most).find_map(|seed| {
        let violation = run(seed, Some(mutation), false).violation?;
        let known = clean.lock().ok()?.get(&seed).copied();
        let holds = known.unwrap_or_else(|| run(seed, None, false).violation.is_none());
        clean.lock().ok()?.insert(seed, holds);
        holds.then_some(Caught { seed, violation })
    })
}
