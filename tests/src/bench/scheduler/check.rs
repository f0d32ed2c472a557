//! The slow checker. It replays what the scheduler did on plain arrays, knows the rules only from their description,
//! and shares no code with the scheduler.

use std::collections::HashMap;

use anyhow::{bail, ensure};
use swarm_model::{NodeId, Resources};

use super::workload::{Host, Kind, ZONES};

/// Placements that are compared with every node of the cluster; the others are checked for validity, and all together
/// for evenness.
const COMPARED: usize = 1_000;

/// What happened to one task.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Place { service: u32, node: NodeId },
    End { service: u32, node: NodeId },
}

impl Act {
    pub fn node(self) -> NodeId {
        match self {
            Self::Place { node, .. } | Self::End { node, .. } => node,
        }
    }
}

struct World<'a> {
    hosts: &'a [Host],
    reserved: Vec<Resources>,
    tasks: Vec<u32>,
    /// By service, then by node.
    replicas: Vec<HashMap<usize, u32>>,
    /// By service.
    fills: Vec<[u32; ZONES]>,
}

/// Replays `acts`, the first `steady` of which only place. Returns how many placements were compared with every node.
///
/// # Errors
/// The first placement that breaks a rule.
pub fn check(hosts: &[Host], services: u32, acts: &[Act], steady: usize) -> anyhow::Result<usize> {
    let by_id: HashMap<NodeId, usize> = hosts.iter().enumerate().map(|(at, host)| (host.id, at)).collect();
    let mut world = World {
        hosts,
        reserved: vec![Resources::default(); hosts.len()],
        tasks: vec![0; hosts.len()],
        replicas: vec![HashMap::new(); services as usize],
        fills: vec![[0; ZONES]; services as usize],
    };
    let every = acts.len().div_ceil(COMPARED).max(1);
    let mut compared = 0;
    // Ends and placements alternate in the end: the next placement after each mark is compared.
    let mut due = 0;
    for (index, act) in acts.iter().enumerate() {
        let Some(at) = by_id.get(&act.node()).copied() else {
            bail!("step {index}: unknown node in {act:?}")
        };
        match *act {
            Act::End { service, .. } => world.end(service, at)?,
            Act::Place { service, .. } => {
                ensure!(world.fits(service, at), "step {index}: {act:?} does not fit on node {at}");
                if index >= due {
                    due += every;
                    compared += 1;
                    world.is_best(service, at).map_err(|error| error.context(format!("step {index}")))?;
                }
                world.place(service, at);
            }
        }
        if index + 1 == steady {
            (0..services).try_for_each(|service| world.is_even(service))?;
        }
    }
    Ok(compared)
}

impl World<'_> {
    fn fits(&self, service: u32, at: usize) -> bool {
        let (kind, host, reserved) = (Kind::of(service), &self.hosts[at], self.reserved[at]);
        reserved.cpu_nanos + kind.need.cpu_nanos <= host.capacity.cpu_nanos
            && reserved.memory_bytes + kind.need.memory_bytes <= host.capacity.memory_bytes
            && (host.ssd || !kind.ssd)
    }

    fn replicas(&self, service: u32, at: usize) -> u32 {
        self.replicas[service as usize].get(&at).copied().unwrap_or(0)
    }

    fn place(&mut self, service: u32, at: usize) {
        self.reserved[at] = self.reserved[at].saturating_add(Kind::of(service).need);
        self.tasks[at] += 1;
        *self.replicas[service as usize].entry(at).or_default() += 1;
        self.fills[service as usize][self.hosts[at].zone] += 1;
    }

    fn end(&mut self, service: u32, at: usize) -> anyhow::Result<()> {
        ensure!(
            self.replicas(service, at) > 0,
            "a task of service {service} ended on node {at}, which had none"
        );
        self.reserved[at] = self.reserved[at].saturating_sub(Kind::of(service).need);
        self.tasks[at] -= 1;
        self.replicas[service as usize].entry(at).and_modify(|count| *count -= 1);
        self.fills[service as usize][self.hosts[at].zone] -= 1;
        Ok(())
    }

    /// No node of the whole cluster that fits has a better score.
    fn is_best(&self, service: u32, chosen: usize) -> anyhow::Result<()> {
        let by_zone = Kind::of(service).by_zone;
        let score = |at: usize| {
            let fill = if by_zone { self.fills[service as usize][self.hosts[at].zone] } else { 0 };
            (fill, self.replicas(service, at), self.tasks[at], self.hosts[at].id)
        };
        let ours = score(chosen);
        for at in 0..self.hosts.len() {
            let theirs = score(at);
            ensure!(
                theirs >= ours || !self.fits(service, at),
                "service {service} went to node {chosen} {ours:?}, but {at} was better: {theirs:?}"
            );
        }
        Ok(())
    }

    /// While tasks were only placed, a node (or zone) that still has room never was passed over for one with more.
    fn is_even(&self, service: u32) -> anyhow::Result<()> {
        let by_zone = Kind::of(service).by_zone;
        let (mut most, mut least) = ([0; ZONES], [u32::MAX; ZONES]);
        for at in 0..self.hosts.len() {
            let zone = if by_zone { self.hosts[at].zone } else { 0 };
            let replicas = self.replicas(service, at);
            most[zone] = replicas.max(most[zone]);
            if self.fits(service, at) {
                least[zone] = replicas.min(least[zone]);
            }
        }
        for (most, least) in most.iter().zip(least) {
            ensure!(
                *most <= least.saturating_add(1),
                "service {service}: {most} on one node, {least} on another"
            );
        }
        if by_zone {
            let fills = self.fills[service as usize];
            let (most, least) =
                (fills.iter().max(), fills.iter().zip(least).filter(|(_, room)| *room < u32::MAX));
            let least = least.map(|(fill, _)| *fill).min().unwrap_or(u32::MAX);
            ensure!(
                most.is_none_or(|most| *most <= least.saturating_add(1)),
                "service {service}: zones {fills:?}"
            );
        }
        Ok(())
    }
}
