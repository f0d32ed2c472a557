//! A seed is a run: whatever fails can be replayed. And what is broken on purpose is seen.

use swarm_sim::campaign::{self, KeptSeed};
use swarm_sim::{Mutation, run};

#[test]
fn the_same_seed_is_the_same_run() {
    let (first, second) = (run(3, None, false), run(3, None, false));
    assert_eq!((first.digest, first.happenings), (second.digest, second.happenings));
    assert_ne!(first.digest, run(4, None, false).digest);
}

/// Those that failed once; `cargo sim --seeds A..B` runs more.
#[test]
fn seeds_hold() {
    let kept = campaign::kept_seeds(include_str!("../../../data/seeds.txt")).unwrap();
    for KeptSeed { seed, cause } in kept {
        let outcome = run(seed, None, false);
        let story = outcome.story.join("\n");
        assert_eq!(outcome.violation, None, "cargo sim --seed {seed} (once {cause})\n{story}");
    }
}

/// Seeds within which a deliberate bug is seen here; `cargo sim --mutations` proves it of all bugs, with more.
const FEW: u64 = 10;

/// `expect`: the checker that sees it.
fn check(mutation: Mutation, expect: &str) {
    let outcomes = (1..=FEW).map(|seed| run(seed, Some(mutation), false));
    let seen = outcomes.filter_map(|outcome| outcome.violation).any(|violation| violation.check == expect);
    assert!(seen, "{expect:?} does not see that {}", mutation.describe());
}

#[test]
fn what_disks_lose_is_seen() {
    check(Mutation::SkipSync, "history");
    check(Mutation::LoseLastEntry, "start");
    check(Mutation::ForgetVote, "one leader");
    check(Mutation::TruncateTooMuch, "start");
    check(Mutation::CheckpointLacksObject, "equal stores");
}

#[test]
fn wrong_answers_are_seen() {
    check(Mutation::FollowerAnswersAtOnce, "history");
    check(Mutation::IgnoreVersion, "history");
    check(Mutation::AcknowledgeBeforeCommit, "history");
}

#[test]
fn wrong_orders_are_seen() {
    check(Mutation::ObeyDeposed, "acts");
    check(Mutation::AssignTwice, "acts");
    check(Mutation::SameAddress, "acts");
    check(Mutation::ReplayAssignment, "agent");
    check(Mutation::ReportFailed, "outcomes");
}

#[test]
fn wrong_decisions_are_seen() {
    check(Mutation::IgnoreHostPorts, "ports");
    check(Mutation::IgnoreReservations, "reservations");
    check(Mutation::IgnoreConstraints, "placement");
    check(Mutation::IgnoreStopFirst, "slots");
    check(Mutation::IgnoreDelay, "restarts");
}
