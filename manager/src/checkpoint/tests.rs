//! Checkpoints: what they hold, what a power cut at any moment leaves of them, and what rot does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use swarm_manager_core::door::{ObjectKey, StoredObject};
use tempfile::TempDir;

use super::replica::Step;
use super::*;

/// Small, so that sled uses its segments again and again. Pieces of these tests are far below a quarter.
const SEGMENT: usize = 64 << 10;
const SECTOR: usize = 512;

static KEY: LazyLock<DataKey> = LazyLock::new(DataKey::generate);

fn object(key: &str, size: usize) -> StoredObject {
    let value = (0..size).map(|at| u8::try_from(at % 251).expect("a byte")).collect::<Vec<_>>();
    StoredObject { key: ObjectKey(Bytes::copy_from_slice(key.as_bytes())), value: value.into() }
}

fn checkpoint(index: u64, changed: Vec<StoredObject>, removed: &[&str]) -> Checkpoint {
    let removed = removed.iter().map(|key| ObjectKey(Bytes::copy_from_slice(key.as_bytes()))).collect();
    Checkpoint { index, term: 3, conf_state: Bytes::from_static(b"voters"), changed, removed }
}

#[test]
fn checkpoints_add_up_across_restarts() {
    let directory = scratch();
    let (mut store, state) = CheckpointStore::open(directory.path(), &KEY).expect("opens");
    assert_eq!(state, None);
    store
        .write(&checkpoint(5, vec![object("a", 10), object("ab", 300_000), object("b", 0)], &[]))
        .expect("written");
    store.write(&checkpoint(9, vec![object("ab", 5), object("c", 70_000)], &["b"])).expect("written");
    drop(store);
    let (mut store, state) = CheckpointStore::open(directory.path(), &KEY).expect("opens");
    let state = state.expect("a checkpoint");
    assert_eq!((state.index, state.term, &state.conf_state[..]), (9, 3, &b"voters"[..]));
    assert_eq!(state.objects, [object("a", 10), object("ab", 5), object("c", 70_000)]);
    let other =
        CheckpointState { index: 20, term: 4, conf_state: Bytes::new(), objects: vec![object("z", 1)] };
    store.replace(&other).expect("replaced");
    drop(store);
    assert_eq!(CheckpointStore::open(directory.path(), &KEY).expect("opens").1, Some(other));
}

#[test]
fn a_checkpoint_says_nothing_without_its_key_and_is_left_alone_with_another() {
    let directory = scratch();
    let (mut store, _) = CheckpointStore::open(directory.path(), &KEY).expect("opens");
    let canary = b"a secret of the operator";
    let secret = |key: &[u8]| StoredObject {
        key: ObjectKey(Bytes::copy_from_slice(key)),
        value: Bytes::from(canary.repeat(10_000)),
    };
    store.write(&checkpoint(5, vec![secret(canary), secret(b"plain")], &[])).expect("written");
    drop(store);
    let before = COPIES.map(|name| files(&directory.path().join(name)));
    for (name, bytes) in before.iter().flatten() {
        assert!(!bytes.windows(8).any(|window| window == &canary[..8]), "{name}");
    }
    let error = CheckpointStore::open(directory.path(), &DataKey::generate()).expect_err("another key");
    assert!(matches!(&error, CheckpointError::OtherKey { .. }), "{error}");
    let (_, state) = CheckpointStore::open(directory.path(), &KEY).expect("opens");
    assert_eq!(state.expect("there").objects, [secret(canary), secret(b"plain")]);
}

/// In memory where there is such a place: what syncs mean is played here, not measured.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// Files of a directory, by name, read once.
type Files = BTreeMap<String, Vec<u8>>;

fn files(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    // One that sled removes at this moment is gone.
    names
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read(entry.path()).ok()?)))
        .collect()
}

/// One copy on a disk that may lose what was not synced: what certainly is there, and what was there at a later moment.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// Read right before the last sync that succeeded: at least that is durable.
    durable: Files,
    before_sync: Files,
    now: Files,
}

impl Seen {
    /// What a power cut leaves: of each sector either, of each file either length, of each new name yes or no.
    fn after_cut(&self, random: &mut StdRng) -> Files {
        let names: BTreeSet<&String> = self.durable.keys().chain(self.now.keys()).collect();
        let mut left = Files::new();
        for name in names {
            match (self.durable.get(name), self.now.get(name)) {
                (Some(old), Some(new)) => drop(left.insert(name.clone(), mixed(old, new, random))),
                (Some(only), None) | (None, Some(only)) => {
                    // sled syncs its other files before they get their names; only the name may be lost.
                    if name == "db" || random.random_bool(0.5) {
                        left.insert(name.clone(), only.clone());
                    }
                }
                (None, None) => {}
            }
        }
        left
    }
}

fn mixed(old: &[u8], new: &[u8], random: &mut StdRng) -> Vec<u8> {
    let length = if random.random_bool(0.5) { old.len() } else { new.len() };
    let mut bytes = old.to_vec();
    bytes.resize(length, 0);
    let kept = [0.0, 0.1, 0.5, 0.9, 1.0][random.random_range(0..5)];
    for (sector, new) in bytes.chunks_mut(SECTOR).zip(new.chunks(SECTOR)) {
        if random.random_bool(kept) {
            let count = sector.len().min(new.len());
            sector[..count].copy_from_slice(&new[..count]);
        }
    }
    bytes
}

/// Watches both copies at every step of every commit.
#[derive(Default)]
struct Witness {
    copies: [Seen; 2],
    /// Everything as it was at each step.
    moments: Vec<[Seen; 2]>,
    owed: Vec<usize>,
    acknowledged: usize,
}

impl Witness {
    fn step(&mut self, path: &Path, step: Step) {
        let which = usize::from(path.ends_with(COPIES[1]));
        let seen = &mut self.copies[which];
        seen.now = files(path);
        match step {
            Step::Written => {}
            Step::Flushed => seen.before_sync = seen.now.clone(),
            Step::Synced => seen.durable = std::mem::take(&mut seen.before_sync),
        }
        self.moments.push(self.copies.clone());
        self.owed.push(self.acknowledged);
    }
}

/// A store that grew and shrank for a while, and all that was seen.
fn written(seed: u64, rounds: usize) -> (Vec<Option<CheckpointState>>, Witness) {
    let directory = scratch();
    let (mut store, _) = CheckpointStore::open_with(directory.path(), SEGMENT, &KEY).expect("opens");
    let witness = Arc::new(Mutex::new(Witness::default()));
    {
        let mut witness = witness.lock().expect("whole");
        for (seen, name) in witness.copies.iter_mut().zip(COPIES) {
            // Opening syncs.
            seen.durable = files(&directory.path().join(name));
            seen.now = seen.durable.clone();
        }
    }
    for replica in [&mut store.first, &mut store.second] {
        let witness = Arc::clone(&witness);
        replica.probe = Some(Arc::new(move |path: &Path, step| {
            witness.lock().expect("whole").step(path, step);
        }));
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut objects: BTreeMap<String, StoredObject> = BTreeMap::new();
    let mut states = vec![None];
    for round in 1..=rounds {
        let mut changed = BTreeMap::new();
        for _ in 0..random.random_range(1..100) {
            let key = format!("key {:03}", random.random_range(0..300));
            changed.insert(key.clone(), object(&key, random.random_range(0..500)));
        }
        let removed: Vec<String> = objects
            .keys()
            .filter(|key| !changed.contains_key(*key) && random.random_bool(0.1))
            .cloned()
            .collect();
        removed.iter().for_each(|key| drop(objects.remove(key)));
        objects.extend(changed.clone());
        let state = CheckpointState {
            index: round as u64,
            term: 3,
            conf_state: Bytes::from_static(b"voters"),
            objects: objects.values().cloned().collect(),
        };
        if random.random_bool(0.1) {
            store.replace(&state).expect("replaced");
        } else {
            let removed: Vec<&str> = removed.iter().map(String::as_str).collect();
            let changed = changed.into_values().collect();
            store.write(&checkpoint(round as u64, changed, &removed)).expect("written");
        }
        states.push(Some(state));
        witness.lock().expect("whole").acknowledged = round;
    }
    drop(store);
    let witness = std::mem::take(&mut *witness.lock().expect("whole"));
    (states, witness)
}

fn laid_out(copies: [&Files; 2]) -> TempDir {
    let directory = scratch();
    for (name, files) in COPIES.iter().zip(copies) {
        let copy = directory.path().join(name);
        fs::create_dir(&copy).expect("made");
        for (name, bytes) in files {
            fs::write(copy.join(name), bytes).expect("written");
        }
    }
    directory
}

fn opened(directory: &TempDir) -> Result<Option<CheckpointState>, CheckpointError> {
    CheckpointStore::open_with(directory.path(), SEGMENT, &KEY).map(|(_, state)| state)
}

/// At every step of every commit, with any mixture of old and new sectors in the copies.
#[test]
fn a_power_cut_anywhere_leaves_the_last_checkpoint_or_the_next() {
    for seed in 0..2 {
        let (states, witness) = written(seed, 16);
        let mut random = StdRng::seed_from_u64(seed);
        for (moment, (copies, owed)) in witness.moments.iter().zip(&witness.owed).enumerate() {
            let left = copies.each_ref().map(|seen| seen.after_cut(&mut random));
            let directory = laid_out(left.each_ref());
            let state =
                opened(&directory).unwrap_or_else(|error| panic!("moment {moment}: {}", chain(&error)));
            let next = (owed + 1).min(states.len() - 1);
            assert!(
                [&states[*owed], &states[next]].contains(&&state),
                "seed {seed}, moment {moment}: index {:?} instead of {owed}",
                state.map(|state| state.index)
            );
        }
    }
}

/// Flipped bytes and lost ends: of one copy they are repaired from the other, of both they are found.
#[test]
fn damage_is_repaired_from_the_other_copy_or_found() {
    let (states, witness) = written(7, 12);
    let last = states.last().expect("some");
    let whole = witness.copies.map(|seen| seen.now);
    let mut random = StdRng::seed_from_u64(7);
    let mut found = 0;
    for round in 0..60 {
        let mut hurt = whole.clone();
        let damaged: &[usize] = if round % 3 == 2 { &[0, 1] } else { &[round % 3] };
        for copy in damaged {
            let names: Vec<String> = hurt[*copy].keys().filter(|name| *name != "conf").cloned().collect();
            let bytes = hurt[*copy].get_mut(&names[random.random_range(0..names.len())]).expect("there");
            for _ in 0..random.random_range(1..20) {
                let at = random.random_range(0..bytes.len().max(1));
                match bytes.get_mut(at) {
                    Some(byte) => *byte ^= 1 << random.random_range(0..8),
                    None => break,
                }
            }
            if random.random_bool(0.2) {
                bytes.truncate(random.random_range(0..bytes.len().max(1)));
            }
        }
        let directory = laid_out(hurt.each_ref());
        match opened(&directory) {
            Ok(state) if damaged.len() == 1 => assert!(state == *last, "round {round}"),
            // An older checkpoint is whole; that the log does not reach back to it is seen there.
            Ok(state) => assert!(states.contains(&state), "round {round}"),
            Err(error) => {
                assert_eq!(damaged.len(), 2, "round {round}: {}", chain(&error));
                found += 1;
            }
        }
    }
    assert!(found > 0);
}
