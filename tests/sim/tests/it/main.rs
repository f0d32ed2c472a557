//! A seed is a run: whatever fails can be replayed.

use swarm_sim::run;

#[test]
fn the_same_seed_is_the_same_run() {
    let (first, second) = (run(3, None, false), run(3, None, false));
    assert_eq!((first.digest, first.happenings), (second.digest, second.happenings));
    assert_ne!(first.digest, run(4, None, false).digest);
}

/// Those that failed once, and some others; `cargo sim --seeds A..B` runs more.
#[test]
fn seeds_hold() {
    let kept = include_str!("../../../data/seeds.txt").lines().filter(|line| !line.starts_with('#'));
    let kept = kept.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    for seed in kept.chain(100..115) {
        let outcome = run(seed, None, false);
        assert_eq!(outcome.violation, None, "cargo sim --seed {seed}\n{}", outcome.story.join("\n"));
    }
}
