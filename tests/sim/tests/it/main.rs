//! A seed is a run: whatever fails can be replayed.

use swarm_sim::run;

#[test]
fn the_same_seed_is_the_same_run() {
    let (first, second) = (run(3, None, false), run(3, None, false));
    assert_eq!((first.digest, first.happenings), (second.digest, second.happenings));
    assert_ne!(first.digest, run(4, None, false).digest);
}
