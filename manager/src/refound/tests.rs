//! A manager alone with a backup or its own disk, and what cannot be restored.

use swarm_manager_core::ManagerCore;
use swarm_manager_core::api::{Request, Response};
use swarm_manager_core::door::{Config, Effect, Event, RequestId};
use swarm_model::NodeRole;
use tempfile::TempDir;

use super::*;
use crate::backup::{self, BackupReader, ReadBackupError};
use crate::engine::tests::{create_cluster, new_node};
use crate::keys::UnlockKey;

const RAFT_ID: u64 = 1;

/// What a cluster of one holds after some writes, as its disk would.
fn cluster(nodes: u128) -> Recovered {
    let config = Config::new(NodeId::from_u128(1), RAFT_ID, [3; 32]);
    let mut held = Recovered::default();
    let mut effects = Vec::new();
    let mut core = ManagerCore::new(config, held.clone(), now(), &mut effects).expect("starts");
    let mut requests = vec![Request::CreateCluster(Box::new(create_cluster()))];
    let worker = |number| NewNode { role: NodeRole::Worker, manager_address: None, ..new_node(number) };
    let node = |number| if number <= 3 { new_node(number) } else { worker(number) };
    requests.extend((2..=nodes).map(|number| Request::AdmitNode(node(number))));
    for (request, id) in requests.into_iter().zip(1..) {
        core.handle(now(), Event::Request { id: RequestId(id), by: None, request }, &mut effects);
        let mut answered = false;
        while !answered {
            core.handle(now(), Event::Wakeup, &mut effects);
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Persist(persist) => {
                        held.entries.extend(persist.entries);
                        held.hard_state = persist.hard_state.or(held.hard_state.take());
                        core.handle(now(), Event::Persisted { ready: persist.ready }, &mut effects);
                    }
                    Effect::Reply { result, .. } => {
                        assert!(!matches!(result.expect("taken"), Response::Done));
                        answered = true;
                    }
                    _ => {}
                }
            }
        }
    }
    held
}

fn backup(salvage: &Salvage, unlock: Option<&UnlockKey>) -> Vec<u8> {
    let mut file = Vec::new();
    backup::write(&salvage.capture(), unlock, &mut |bytes| {
        file.extend(bytes);
        true
    });
    file
}

fn read(file: &[u8], unlock: Option<UnlockKey>) -> Result<backup::Backup, ReadBackupError> {
    let mut reader = BackupReader::new(unlock);
    for bytes in file.chunks(1_000) {
        reader.push(bytes)?;
    }
    reader.finish()
}

#[test]
fn a_backup_is_restored_to_an_empty_disk_as_it_was() {
    let salvage = Salvage::of_disk(&cluster(40)).expect("readable");
    let key = UnlockKey::generate();
    for unlock in [None, Some(key)] {
        let file = backup(&salvage, unlock.as_ref());
        let clear = file.windows(7).any(|window| window == b"host-17");
        assert_eq!(clear, unlock.is_none(), "only an encrypted one tells nothing");
        let found = read(&file, unlock.clone()).expect("whole");
        assert_eq!((found.state.nodes, found.state.index), (40, salvage.capture().index()));
        let (directory, data_key) = (TempDir::new().expect("a directory"), DataKey::generate());
        restore(directory.path(), &data_key, found.salvage, new_node(77)).expect("restored");
        let disk = Disk::open(directory.path(), &data_key).expect("opens");
        let again = Salvage::of_disk(&disk.recovered).expect("readable");
        let names: Vec<_> = again.capture().nodes().map(|node| node.engine.hostname.clone()).collect();
        assert!(names.contains(&"host-77".to_owned()) && again.managers().count() == 1, "{names:?}");
    }
}

#[test]
fn a_hurt_backup_or_a_wrong_key_is_found_before_anything_is_done() {
    let salvage = Salvage::of_disk(&cluster(3)).expect("readable");
    let (key, other) = (UnlockKey::generate(), UnlockKey::generate());
    let file = backup(&salvage, Some(&key));
    assert!(matches!(read(&file, Some(other)), Err(ReadBackupError::Key { given: Some(_), .. })));
    assert!(matches!(read(&file, None), Err(ReadBackupError::Key { given: None, .. })));
    for at in (0..file.len()).step_by(7) {
        let mut hurt = file.clone();
        hurt[at] ^= 0x10;
        assert!(read(&hurt, Some(key.clone())).is_err(), "byte {at}");
        assert!(read(&file[..at], Some(key.clone())).is_err(), "cut at {at}");
    }
}

#[test]
fn a_survivor_goes_on_alone_and_a_crash_in_the_middle_changes_nothing_of_that() {
    let held = cluster(3);
    let data_key = DataKey::generate();
    for crash in [false, true] {
        let directory = TempDir::new().expect("a directory");
        let mut disk = Disk::open(directory.path(), &data_key).expect("opens");
        disk.log.append(held.hard_state.as_ref(), &held.entries).expect("appended");
        disk.log.close().expect("closed");
        drop(disk);
        if crash {
            // The checkpoint is written, the log is not yet.
            let mut disk = Disk::open(directory.path(), &data_key).expect("opens");
            let salvage = Salvage::of_disk(&disk.recovered).expect("readable");
            let survivor = Survivor::Member(NodeId::from_u128(1));
            let refounded = salvage.refound(&survivor, now()).expect("a manager");
            disk.checkpoints.replace(&refounded.state).expect("written");
        } else {
            recover(directory.path(), &data_key, NodeId::from_u128(1)).expect("recovered");
        }
        let (path, out) = (directory.path(), Box::new(|_, _| {}));
        let raft_id = swarm_manager_core::first_raft_id(NodeId::from_u128(1));
        let config = Config::new(NodeId::from_u128(1), raft_id, [4; 32]);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let engine = crate::engine::Engine::start(config, path, &data_key, out).expect("starts");
            let leads = |now: &_| matches!(now, swarm_manager_core::door::Leadership::Leader { .. });
            engine.leadership().wait_for(leads).await.expect("it leads");
            let Ok(Response::Nodes(nodes)) = engine.request(Request::ListNodes).await else {
                panic!("it answers");
            };
            assert_eq!(nodes.len(), 1, "the other managers are out");
            engine.stop().await;
        });
    }
}
