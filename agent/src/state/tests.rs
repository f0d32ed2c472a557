use swarm_agent_core::fake::assignment;
use swarm_model::DesiredState;

use super::*;

fn record(task: u128) -> TaskRecord {
    let assignment = assignment(TaskId::from_u128(task), DesiredState::Running);
    TaskRecord { assignment: assignment.into(), ended: None }
}

fn open(directory: &Path, boot: &str) -> StateStore {
    StateStore::open_in_boot(directory, boot.to_owned()).unwrap()
}

#[test]
fn what_was_written_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "boot 1");
    let node = NodeRecord { epoch: 7, managers: vec!["m:1".to_owned()], place: None };
    let changes = vec![
        Change::Node(node.clone()),
        Change::Task(record(1)),
        Change::Task(record(2)),
        Change::Forget(TaskId::from_u128(1)),
        Change::Forget(TaskId::from_u128(9)),
    ];
    store.write(changes).unwrap();
    let stored = open(directory.path(), "boot 1").load().unwrap();
    assert_eq!((stored.node, stored.tasks), (node, vec![record(2)]));
    assert!(stored.before_reboot.is_empty());
    let after = open(directory.path(), "boot 2").load().unwrap();
    assert_eq!(after.before_reboot, BTreeSet::from([TaskId::from_u128(2)]));
}

#[test]
fn a_damaged_record_is_set_aside_and_half_a_write_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "boot");
    store.write(vec![Change::Task(record(1)), Change::Task(record(2))]).unwrap();
    fs::write(store.path(TaskId::from_u128(1)), "{").unwrap();
    fs::write(store.path(TaskId::from_u128(3)).with_extension("new"), "{").unwrap();
    assert_eq!(store.load().unwrap().tasks, [record(2)]);
    assert_eq!(store.load().unwrap().tasks, [record(2)], "the second time the same");
    assert!(!store.path(TaskId::from_u128(3)).with_extension("new").exists());
}

#[test]
fn a_damaged_node_record_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), "boot");
    fs::write(directory.path().join("node.json"), "[]").unwrap();
    assert!(store.load().unwrap_err().to_string().contains("node.json"));
}
