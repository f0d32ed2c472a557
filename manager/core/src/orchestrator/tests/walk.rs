//! Random walks: anything may happen to the world, every plan is checked; then all faults end, and it must converge.

use std::time::Duration;

use swarm_model::{
    DesiredState, FailureAction, NodeId, RestartCondition, ServiceMode, ServiceSpec, TaskId, TaskState,
    UpdateOrder, UpdateState,
};

use super::checks::differs;
use super::world::{NodeIs, World, status};
use super::{script, spec};

const WALKS: u64 = 300;
const STEPS: usize = 120;
/// Decisions without any event before a plan counts as restless.
const MAX_DECISIONS: usize = 10;
/// Wake-ups until a healed world must be at rest: back-offs and updates of a few slots need far fewer.
const MAX_WAKEUPS: usize = 5_000;

#[test]
fn whatever_happens_the_rules_hold_and_the_world_converges() {
    for seed in 0..WALKS {
        let mut dice = Dice(seed);
        let mut spec = spec::plain("web");
        shake_spec(&mut spec, &mut dice);
        let mut world = World::new(spec, 3);
        let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walk(&mut world, &mut dice)));
        assert!(
            walked.is_ok(),
            "seed {seed} failed for the reason above; last plans:\n{}\ntasks:\n  {}\n{:?}",
            Vec::from(world.last.clone()).join("\n"),
            script::shown(&world).join("\n  "),
            world.service.update
        );
    }
}

fn walk(world: &mut World, dice: &mut Dice) {
    settle(world);
    for _ in 0..STEPS {
        step(world, dice);
        settle(world);
    }
    heal(world);
    converged(world);
}

fn step(world: &mut World, dice: &mut Dice) {
    match dice.below(24) {
        0..8 => something_is_reported(world, dice),
        8..11 => drop(world.agents_obey()),
        11 => {
            let mut spec = (*world.service.spec).clone();
            spec.mode = ServiceMode::Replicated { replicas: dice.below(6) as u32 };
            world.change_spec(spec);
        }
        12 => {
            let mut spec = (*world.service.spec).clone();
            shake_spec(&mut spec, dice);
            world.change_spec(spec);
        }
        13 if world.service.revisions.len() > 1 => {
            let revisions: Vec<u64> = world.service.revisions.keys().copied().collect();
            let to = revisions[dice.below(revisions.len() as u64) as usize];
            if to != world.service.revision {
                world.roll_back_by_hand(to);
            }
        }
        14..17 => {
            let node = NodeId::from_u128(u128::from(1 + dice.below(world.nodes.len() as u64)));
            if world.nodes[&node] == NodeIs::Gone {
                return;
            }
            let is = match dice.below(8) {
                0 => NodeIs::Draining,
                1 => NodeIs::Mismatch,
                2 => NodeIs::Down(world.now),
                3 => NodeIs::Gone,
                _ => NodeIs::Ready,
            };
            if is == NodeIs::Gone && dice.below(4) > 0 {
                return;
            }
            if is == NodeIs::Gone {
                world.nodes.insert(NodeId::from_u128(world.nodes.len() as u128 + 1), NodeIs::Ready);
            }
            world.set_node(node, is);
            world.place();
        }
        17 => world.change_leader(),
        18 => {
            world.room = dice.below(3) > 0;
            world.place();
        }
        19 => drop(world.broken.insert(image(dice), 1)),
        20 => world.broken.clear(),
        21 => {
            if world.missing.is_empty() {
                world.missing.insert(image(dice));
            } else {
                world.missing.clear();
            }
        }
        _ => {
            let millis = [1, 100, 5_000, 20_000, 400_000][dice.below(5) as usize];
            let time = world.now + Duration::from_millis(1 + dice.below(millis));
            world.now = world.next_wakeup.filter(|_| dice.below(2) == 0).unwrap_or(time).max(world.now);
        }
    }
}

/// An agent reports any state that a task can have come to.
fn something_is_reported(world: &mut World, dice: &mut Dice) {
    let placed: Vec<TaskId> =
        world.tasks.values().filter(|task| task.node.is_some()).map(|task| task.id).collect();
    if placed.is_empty() {
        return;
    }
    let id = placed[dice.below(placed.len() as u64) as usize];
    let before = world.actual.get(&id).map_or(TaskState::Assigned, |status| status.state);
    let wanted = world.tasks[&id].desired;
    let next = match dice.below(12) {
        0 => TaskState::Preparing,
        1..6 if wanted == DesiredState::Running => TaskState::Running,
        6 if wanted == DesiredState::Running => TaskState::Complete,
        7 | 8 => TaskState::Failed,
        9 if before < TaskState::Starting => TaskState::Rejected,
        _ if wanted >= DesiredState::Shutdown => TaskState::Shutdown,
        _ => TaskState::Ready,
    };
    if next > before && !before.is_final() {
        world.report(id, status(next, None, ""));
    }
}

fn image(dice: &mut Dice) -> String {
    format!("v{}", dice.below(4))
}

fn shake_spec(spec: &mut ServiceSpec, dice: &mut Dice) {
    spec.mode = ServiceMode::Replicated { replicas: dice.below(6) as u32 };
    spec.task.container.image.name = image(dice);
    spec.task.force_update += u64::from(dice.below(8) == 0);
    let order = [None, Some(UpdateOrder::StartFirst), Some(UpdateOrder::StopFirst)][dice.below(3) as usize];
    for policy in [&mut spec.update, &mut spec.rollback] {
        policy.order = order;
        policy.parallelism = dice.below(4);
        policy.delay = Duration::from_secs(dice.below(2) * 7);
        policy.monitor = Duration::from_secs(dice.below(3) * 5);
        policy.max_failure_ratio_millionths = [0, 0, 340_000, 1_000_000][dice.below(4) as usize];
        policy.failure_action = match dice.below(3) {
            0 => FailureAction::Pause,
            1 => FailureAction::Continue,
            _ => FailureAction::Rollback,
        };
    }
    if spec.rollback.failure_action == FailureAction::Rollback {
        spec.rollback.failure_action = FailureAction::Pause;
    }
    let restart = &mut spec.task.restart;
    restart.condition = match dice.below(6) {
        0 => RestartCondition::None,
        1 => RestartCondition::OnFailure,
        _ => RestartCondition::Any,
    };
    restart.delay = Duration::from_millis([0, 100, 5_000][dice.below(3) as usize]);
    restart.max_attempts = [0, 0, 2, 7][dice.below(4) as usize];
    restart.window = Duration::from_secs([0, 0, 30][dice.below(3) as usize]);
}

/// Decides until there is nothing to decide. Without an event in between that takes few plans.
fn settle(world: &mut World) {
    for _ in 0..MAX_DECISIONS {
        if world.decide().is_empty() {
            return;
        }
    }
    panic!("plans go on without anything happening");
}

/// All faults end, agents obey, and time passes until nothing is planned any more.
fn heal(world: &mut World) {
    world.room = true;
    world.broken.clear();
    world.missing.clear();
    for node in world.nodes.clone().into_keys() {
        if world.nodes[&node] != NodeIs::Gone {
            world.set_node(node, NodeIs::Ready);
        }
    }
    world.nodes.insert(NodeId::from_u128(world.nodes.len() as u128 + 1), NodeIs::Ready);
    world.place();
    settle(world);
    for _ in 0..MAX_WAKEUPS {
        if !world.agents_obey().is_empty() {
            settle(world);
            continue;
        }
        let Some(wakeup) = world.next_wakeup else { return };
        world.now = world.now.max(wakeup);
        settle(world);
    }
    panic!("it does not come to rest");
}

fn converged(world: &World) {
    let service = &world.service;
    let update = service.update.as_ref().filter(|update| update.to_revision == service.revision);
    let state = update.map(|update| update.state);
    assert!(!matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted)), "{update:?}");
    let paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let policy = &service.spec.task.restart;
    let may_end = policy.condition != RestartCondition::Any || policy.max_attempts > 0;
    let mut slots: std::collections::BTreeMap<u32, Vec<_>> = std::collections::BTreeMap::new();
    for task in world.tasks.values() {
        slots.entry(task.slot).or_default().push(task);
    }
    assert_eq!(slots.len(), service.replicas() as usize);
    for (slot, tasks) in slots {
        let live: Vec<_> = tasks.iter().filter(|task| task.is_live()).collect();
        let running = live.iter().filter(|task| {
            world.seen.get(&task.id).is_some_and(|seen| seen.status.state == TaskState::Running)
        });
        assert_eq!(running.count(), live.len(), "slot {slot}: not all live tasks run: {live:?}");
        assert!(
            live.len() == 1 || live.is_empty() && (may_end || paused),
            "slot {slot}: {live:?}, {update:?}"
        );
        // Where the new version failed within what is tolerated and is not tried again, the old one goes on serving.
        assert!(
            paused || may_end || live.iter().all(|task| !differs(service, task.revision)),
            "slot {slot}: {live:?}"
        );
        let ended = tasks.iter().filter(|task| task.outcome.is_some()).count();
        assert_eq!(ended + live.len(), tasks.len(), "slot {slot}: something is still stopping");
        assert!(ended <= 8, "slot {slot} keeps {ended} records");
    }
}

/// SplitMix64: one seed repeats a walk.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
