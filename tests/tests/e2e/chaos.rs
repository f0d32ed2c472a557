//! Every kind of fault once, on real processes under load.

use swarm_tests::chaos::{Fault, Options, run};

#[test]
fn every_kind_of_fault_is_survived() {
    let options = Options { rounds: 1, seed: 1, faults: Vec::new(), logs: None };
    let survived = run(&options, |line| println!("{line}")).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(usize::try_from(survived.faults), Ok(Fault::all().len()));
    assert!(survived.writes > 100 && survived.requests > 100, "{survived:?}");
}
