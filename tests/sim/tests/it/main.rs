//! The simulator as a test: seeds that failed once, some that never did, and that a seed is a run.

use swarm_sim::campaign::{kept_seeds, seeds};
use swarm_sim::run;

const KEPT: &str = include_str!("../../../data/seeds.txt");

#[test]
fn the_same_seed_is_the_same_run() {
    let (first, second) = (run(3, None, false), run(3, None, false));
    assert_eq!((first.digest, first.happenings), (second.digest, second.happenings));
    assert_ne!(first.digest, run(4, None, false).digest);
}

#[test]
fn seeds_that_failed_once_hold() {
    for kept in kept_seeds(KEPT).unwrap() {
        let outcome = run(kept.seed, None, false);
        assert_eq!(outcome.violation, None, "seed {}, which failed once: {}", kept.seed, kept.cause);
    }
}

#[test]
fn some_seeds_hold() {
    let report = seeds(0..20, 2, None, |_, _| ());
    let failure = report.failure.map(|outcome| (outcome.seed, outcome.violation));
    assert_eq!(failure, None, "replay it: cargo sim --seed N");
    assert_eq!(report.runs, 20);
}
