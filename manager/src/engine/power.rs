//! Clusters of one, three and five managers whose power is cut: cores, the log and its writer as they are, on disks that
//! lose what was not synced. Checkpoints have a proof of their own; here a written one is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use swarm_manager_core::api::{ManagerStatus, Request, Response};
use swarm_manager_core::door::{
    Checkpoint, CheckpointState, Config, Effect, Event, Leadership, Recovered, RequestId,
};
use swarm_manager_core::{ManagerCore, first_raft_id};
use swarm_model::{Image, NodeId, Platform, Timestamp};

use super::disk::{LogWork, LogWriter, finish_install};
use super::inbox::{Inbox, Item, Wake};
use super::tests::{create_cluster, new_node};
use crate::keys::DataKey;
use crate::log::SegmentLog;
use crate::log::faulty::{FaultyDisk, Left};

const SEGMENT: u64 = 16 << 10;
const TICK: Duration = Duration::from_millis(30);
/// Far more than any of these scenarios takes.
const MAX_STEPS: usize = 20_000;

static KEY: LazyLock<DataKey> = LazyLock::new(DataKey::generate);

type State = Arc<Mutex<Option<CheckpointState>>>;

/// One manager's disk, and its process while it lives.
struct Member {
    disk: FaultyDisk,
    state: State,
    process: Option<Process>,
}

struct Process {
    core: ManagerCore,
    writer: LogWriter,
    work: (Sender<LogWork>, Receiver<LogWork>),
    leads: bool,
}

/// What is on the disks of a cluster whose power is off.
struct Disks(Vec<(FaultyDisk, Option<CheckpointState>)>);

struct World {
    now: Timestamp,
    members: Vec<Member>,
    messages: VecDeque<(u64, Bytes)>,
    replies: BTreeMap<RequestId, bool>,
    /// Of the last answers.
    listed: Option<BTreeSet<String>>,
    voting: usize,
    requests: u64,
    seed: u8,
}

impl Disks {
    fn empty(count: usize) -> Self {
        Self((0..count).map(|_| (FaultyDisk::default(), None)).collect())
    }

    /// The power goes everywhere.
    fn of(world: &World, random: &mut StdRng) -> Self {
        let left = |member: &Member| member.disk.after_cut(Left::Any(random));
        let disks: Vec<FaultyDisk> = world.members.iter().map(left).collect();
        let states = world.members.iter().map(|member| member.state.lock().unwrap().clone());
        Self(disks.into_iter().zip(states).collect())
    }

    fn start(&self, seed: u8) -> World {
        let members = self.0.iter().map(|(disk, state)| Member {
            disk: disk.after_cut(Left::Everything),
            state: Arc::new(Mutex::new(state.clone())),
            process: None,
        });
        let mut world = World {
            now: Timestamp::from_micros(1_700_000_000_000_000),
            members: members.collect(),
            messages: VecDeque::new(),
            replies: BTreeMap::new(),
            listed: None,
            voting: 0,
            requests: 0,
            seed,
        };
        (0..world.members.len()).for_each(|index| world.start(index));
        world
    }
}

fn raft_id(index: usize) -> u64 {
    first_raft_id(NodeId::from_u128(index as u128 + 1))
}

fn image(number: usize) -> Image {
    Image {
        name: format!("docker.io/library/web:{number}"),
        version: 0,
        created_at: Timestamp::ZERO,
        digest: format!("sha256:{number:064}"),
        manifest_bytes: 1,
        total_bytes: 1,
        platform: Platform { os: "linux".to_owned(), arch: "amd64".to_owned() },
    }
}

impl World {
    /// A process begins on what its disk holds. After a power cut it always can.
    fn start(&mut self, index: usize) {
        let (disk, state) = (self.members[index].disk.clone(), Arc::clone(&self.members[index].state));
        let checkpoint = state.lock().unwrap().clone();
        let opened = SegmentLog::open_on(disk, SEGMENT, &KEY).and_then(|(mut log, mut held)| {
            finish_install(&mut log, &mut held, checkpoint.as_ref())?;
            Ok((log, held))
        });
        let (log, held) = match opened {
            Ok(opened) => opened,
            Err(error) => return assert!(!self.members[index].disk.has_power(), "manager {index}: {error}"),
        };
        let recovered = Recovered { checkpoint, hard_state: held.hard_state, entries: held.entries };
        self.seed = self.seed.wrapping_add(1);
        let node_id = NodeId::from_u128(index as u128 + 1);
        let config = Config { tick: TICK, ..Config::new(node_id, raft_id(index), [self.seed; 32]) };
        let mut effects = Vec::new();
        let core = ManagerCore::new(config, recovered, self.now, &mut effects)
            .unwrap_or_else(|error| panic!("manager {index}: {}", crate::text::chain(&error)));
        let install = Box::new(move |received| {
            *state.lock().unwrap() = Some(received);
            Ok(())
        });
        let writer = LogWriter { log: Box::new(log), inbox: Inbox::default(), install };
        self.members[index].process = Some(Process { core, writer, work: mpsc::channel(), leads: false });
        self.perform(index, effects);
    }

    /// Everybody handles what came, then a moment passes.
    fn step(&mut self) {
        let messages = std::mem::take(&mut self.messages);
        let mut quiet = messages.is_empty();
        for index in 0..self.members.len() {
            let to_it = messages.iter().filter(|(to, _)| *to == raft_id(index));
            let mut events: Vec<Event> =
                to_it.map(|(_, message)| Event::Raft { message: message.clone() }).collect();
            let Some(process) = &mut self.members[index].process else { continue };
            let done = process.writer.inbox.take(usize::MAX, Wake::Anything, Duration::ZERO);
            events.extend(done.into_iter().filter_map(|item| match item {
                Item::Event(event, _) => Some(event),
                Item::Request(..) | Item::Stop => None,
            }));
            quiet &= events.is_empty();
            let mut effects = Vec::new();
            for event in events.into_iter().chain([Event::Wakeup]) {
                process.core.handle(self.now, event, &mut effects);
            }
            self.perform(index, effects);
        }
        self.now = self.now + if quiet { TICK } else { Duration::from_millis(1) };
    }

    fn perform(&mut self, index: usize, effects: Vec<Effect>) {
        let member = &mut self.members[index];
        let Some(process) = &mut member.process else { return };
        for effect in effects {
            match effect {
                Effect::Persist(persist) => drop(process.work.0.send(LogWork::Persist(persist))),
                Effect::TruncateLog { up_to } => drop(process.work.0.send(LogWork::Truncate(up_to))),
                Effect::Checkpoint(checkpoint) => {
                    let index = checkpoint.index;
                    add(&mut member.state.lock().unwrap(), checkpoint.encode());
                    let done = Event::Checkpointed { index };
                    drop(process.writer.inbox.put(Item::Event(done, None)));
                }
                Effect::SendRaft { to, message } => self.messages.push_back((to, message)),
                Effect::SendSnapshot { to, message, state } => {
                    self.messages.push_back((to, state.within(&message)));
                }
                Effect::Reply { id, result } => {
                    if let Ok(Response::Images(images)) = &result {
                        self.listed = Some(images.iter().map(|image| image.name.clone()).collect());
                    }
                    if let Ok(Response::Nodes(nodes)) = &result {
                        let votes = [Some(ManagerStatus::Leader), Some(ManagerStatus::Reachable)];
                        self.voting = nodes.iter().filter(|view| votes.contains(&view.manager)).count();
                    }
                    self.replies.insert(id, result.is_ok());
                }
                Effect::Leadership(leadership) => {
                    process.leads = matches!(leadership, Leadership::Leader { .. });
                }
                Effect::Stop { reason } => panic!("manager {index} stopped: {reason}"),
                Effect::Session { .. }
                | Effect::CloseSession { .. }
                | Effect::Publish(_)
                | Effect::Members(_)
                | Effect::Removed(_)
                | Effect::Autolock(_)
                | Effect::Operators(_)
                | Effect::Happened(_) => {}
            }
        }
        if let Ok(first) = process.work.1.try_recv()
            && let Err(error) = process.writer.group(first, &process.work.1)
        {
            assert!(!member.disk.has_power(), "manager {index}: {error:?}");
            member.process = None;
        }
    }

    fn leader(&self) -> Option<usize> {
        self.members.iter().position(|member| member.process.as_ref().is_some_and(|process| process.leads))
    }

    fn live(&self) -> usize {
        self.members.iter().filter(|member| member.process.is_some()).count()
    }

    fn ask(&mut self, request: Request) -> Option<RequestId> {
        let index = self.leader().or((self.requests == 0).then_some(0))?;
        self.requests += 1;
        let id = RequestId(self.requests);
        let mut effects = Vec::new();
        let process = self.members[index].process.as_mut()?;
        process.core.handle(self.now, Event::Request { id, by: None, request }, &mut effects);
        self.perform(index, effects);
        Some(id)
    }

    /// Asks until it is done, or fewer than so many managers live.
    fn insist(&mut self, request: &Request, quorum: usize) -> bool {
        for _ in 0..MAX_STEPS {
            if self.live() < quorum {
                return false;
            }
            let Some(id) = self.ask(request.clone()) else {
                self.step();
                continue;
            };
            // Whoever was asked may die, and then never answers.
            for _ in 0..200 {
                if self.replies.contains_key(&id) {
                    break;
                }
                self.step();
            }
            if self.replies.get(&id) == Some(&true) {
                return true;
            }
            self.step();
        }
        let leads: Vec<Option<bool>> =
            self.members.iter().map(|member| member.process.as_ref().map(|process| process.leads)).collect();
        panic!("{request:?} is not done; who lives and leads: {leads:?}");
    }

    /// Adds images; those acknowledged.
    fn write(&mut self, numbers: std::ops::Range<usize>, quorum: usize) -> BTreeSet<String> {
        let done = |number: &usize| self.insist(&Request::PutImage(image(*number)), quorum);
        numbers.take_while(done).map(|number| image(number).name).collect()
    }

    /// Runs until all managers hold the same state.
    fn converge(&mut self, what: &str) {
        for _ in 0..MAX_STEPS {
            let processes = self.members.iter().filter_map(|member| member.process.as_ref());
            let states: BTreeSet<(u64, u64)> = processes.map(|process| process.core.fingerprint()).collect();
            if states.len() == 1 && self.live() == self.members.len() {
                return;
            }
            (0..20).for_each(|_| self.step());
        }
        panic!("{what}: the managers' states differ");
    }

    fn images(&mut self, quorum: usize) -> BTreeSet<String> {
        self.listed = None;
        assert!(self.insist(&Request::ListImages, quorum), "a majority is there");
        self.listed.take().unwrap()
    }
}

fn add(state: &mut Option<CheckpointState>, checkpoint: Checkpoint) {
    let old = state.take().map(|state| state.objects).unwrap_or_default();
    let mut objects: BTreeMap<_, _> = old.into_iter().map(|object| (object.key.clone(), object)).collect();
    checkpoint.removed.iter().for_each(|key| drop(objects.remove(key)));
    objects.extend(checkpoint.changed.into_iter().map(|object| (object.key.clone(), object)));
    let Checkpoint { index, term, conf_state, .. } = checkpoint;
    *state = Some(CheckpointState { index, term, conf_state, objects: objects.into_values().collect() });
}

/// A cluster whose managers all vote, and know it: how far the log is committed is written with the next entry.
fn founded(count: usize) -> World {
    let mut world = Disks::empty(count).start(0);
    assert!(world.insist(&Request::CreateCluster(Box::new(create_cluster())), 1));
    for number in 2..=count {
        assert!(world.insist(&Request::AdmitNode(new_node(number as u128)), 1));
    }
    for _ in 0..MAX_STEPS {
        assert!(world.insist(&Request::ListNodes, 1));
        if world.voting == count {
            assert_eq!(world.write(100..103, count).len(), 3);
            (0..50).for_each(|_| world.step());
            return world;
        }
        world.step();
    }
    panic!("{} of {count} vote", world.voting);
}

/// The power of one manager goes at each of its disk's operations in turn; then it comes back while the others go on, or
/// it goes everywhere at that moment.
fn check_cuts(count: usize, every: usize) {
    let quorum = count / 2 + 1;
    let mut random = StdRng::seed_from_u64(count as u64);
    let base = Disks::of(&founded(count), &mut random);
    let mut whole = base.start(0);
    assert_eq!(whole.write(0..6, quorum).len(), 6);
    let operations: Vec<usize> = whole.members.iter().map(|member| member.disk.operations()).collect();
    let mut cuts = 0;
    for (index, operations) in operations.into_iter().enumerate() {
        for cut in (0..operations).filter(|cut| (cut + index) % every == 0) {
            base.0[index].0.set_cut_of_copies(Some(cut));
            let mut world = base.start(0);
            base.0[index].0.set_cut_of_copies(None);
            let what = format!("{count} managers, cut of {index} at {cut}");
            let everywhere = cut % 2 == 0;
            let mut acknowledged = world.write(0..6, if everywhere { count } else { quorum });
            if !everywhere {
                let disk = world.members[index].disk.after_cut(Left::Any(&mut random));
                world.members[index].disk = disk;
                world.members[index].process = None;
                world.start(index);
                acknowledged.extend(world.write(6..8, quorum));
            }
            let mut again = Disks::of(&world, &mut random).start(100);
            let found = again.images(quorum);
            assert!(found.is_superset(&acknowledged), "{what}: {found:?} of {acknowledged:?}");
            cuts += 1;
        }
    }
    assert!(cuts >= 10, "{cuts}");
}

#[test]
fn one_manager_loses_nothing_to_a_power_cut() {
    check_cuts(1, 1);
}

#[test]
fn three_managers_lose_nothing_to_a_power_cut() {
    check_cuts(3, 1);
}

#[test]
fn five_managers_lose_nothing_to_a_power_cut() {
    check_cuts(5, 1);
}

/// A member that was away for so long that it is sent everything, and whose power goes while it takes it.
#[test]
fn a_power_cut_in_the_middle_of_a_received_snapshot_leaves_the_old_state_or_the_new_one() {
    const AWAY: usize = 2;
    let mut random = StdRng::seed_from_u64(9);
    let mut world = founded(3);
    world.members[AWAY].process = None;
    // A checkpoint is cut after a thousand entries, and five hundred are kept for those who are only a little behind.
    for round in 0..1_050 {
        let moved = Image { digest: format!("sha256:{round:064}"), ..image(round % 7) };
        assert!(world.insist(&Request::PutImage(moved), 2));
    }
    let base = Disks::of(&world, &mut random);
    let mut whole = base.start(0);
    whole.converge("uncut");
    assert!(whole.members[AWAY].state.lock().unwrap().is_some(), "it was sent a snapshot");
    let operations = whole.members[AWAY].disk.operations();
    assert!(operations > 6, "{operations}");
    for cut in 0..operations {
        let what = format!("cut at {cut} of {operations}");
        base.0[AWAY].0.set_cut_of_copies(Some(cut));
        let mut world = base.start(0);
        base.0[AWAY].0.set_cut_of_copies(None);
        for _ in 0..MAX_STEPS {
            if world.members[AWAY].process.is_none() {
                break;
            }
            world.step();
        }
        let mut again = Disks::of(&world, &mut random).start(100);
        assert_eq!(again.write(200..202, 2).len(), 2, "{what}");
        again.converge(&what);
        Disks::of(&again, &mut random).start(200).converge(&what);
    }
}
