//! Times the scheduler on one cluster, and hands what it did to the checker.
//!
//! The scheduler waits for nothing, so the processor time of its thread is what it takes on a core of its own, whatever
//! else the machine does.

use std::time::Duration;

use anyhow::ensure;
use rustix::time::{ClockId, clock_gettime};
use swarm_manager_core::scheduler::{PlacementRequest, Scheduler};
use swarm_model::{NodeId, NodeState, Placement, TaskId, Timestamp};

use super::check::{Act, check};
use super::workload::{Kind, hosts, scatter, service_id, task_id};

/// What was measured on one cluster.
#[derive(Debug)]
pub struct Measured {
    pub placements_per_s: f64,
    /// Tasks that end and are placed anew, one per plan.
    pub replacements_per_s: f64,
    /// Of a service's whole plan; the first ones build their class.
    pub slowest_plan: Duration,
    /// Time to record the nodes.
    pub nodes_in: Duration,
    /// Placements that were compared with every node.
    pub checked: usize,
}

struct Run {
    scheduler: Scheduler,
    placements: Vec<Placement>,
    acts: Vec<Act>,
    slowest_plan: Duration,
}

/// Places `tasks` in services of `replicas` on `nodes` nodes, then replaces single tasks.
pub fn measure(nodes: u32, tasks: u32, replicas: u32, replacements: u32) -> anyhow::Result<Measured> {
    let hosts = hosts(nodes, tasks);
    let described: Vec<_> = (0..).zip(&hosts).map(|(index, host)| host.node(index)).collect();
    let services = tasks.div_ceil(replicas);
    let mut run = Run {
        scheduler: Scheduler::new(),
        placements: (0..services).map(|service| Kind::of(service).placement()).collect(),
        acts: Vec::with_capacity(tasks as usize + 2 * replacements as usize),
        slowest_plan: Duration::ZERO,
    };
    let start = cpu_time();
    described.iter().for_each(|node| run.scheduler.upsert_node(node, NodeState::Ready));
    let nodes_in = cpu_time() - start;

    let mut placing = Duration::ZERO;
    for service in 0..services {
        let range = service * replicas..tasks.min((service + 1) * replicas);
        let ids: Vec<TaskId> = range.map(task_id).collect();
        placing += run.place(service, &ids)?;
    }
    let replacing = run.replace(tasks, replacements, replicas)?;
    let checked = check(&hosts, services, &run.acts, tasks as usize)?;
    Ok(Measured {
        placements_per_s: f64::from(tasks) / placing.as_secs_f64(),
        replacements_per_s: f64::from(replacements) / replacing.as_secs_f64(),
        slowest_plan: run.slowest_plan,
        nodes_in,
        checked,
    })
}

impl Run {
    fn place(&mut self, service: u32, ids: &[TaskId]) -> anyhow::Result<Duration> {
        let request = PlacementRequest {
            service: service_id(service),
            revision: 1,
            placement: &self.placements[service as usize],
            reservations: Kind::of(service).need,
            host_ports: &[],
            tasks: ids,
        };
        let start = cpu_time();
        let plan = self.scheduler.plan(Timestamp::ZERO, &request);
        let took = cpu_time() - start;
        self.slowest_plan = self.slowest_plan.max(took);
        ensure!(plan.refusal.is_none(), "service {service} was refused: {:?}", plan.refusal);
        ensure!(
            plan.placed.iter().map(|(task, _)| task).eq(ids),
            "service {service}: other tasks were placed"
        );
        self.acts.extend(plan.placed.iter().map(|(_, node)| Act::Place { service, node: *node }));
        Ok(took)
    }

    /// Ends tasks all over the cluster, one after the other, and places another of the same service.
    fn replace(&mut self, tasks: u32, replacements: u32, replicas: u32) -> anyhow::Result<Duration> {
        let mut live: Vec<(TaskId, NodeId)> =
            (0..tasks).map(|task| (task_id(task), self.acts[task as usize].node())).collect();
        let mut replacing = Duration::ZERO;
        for n in 0..replacements {
            let victim = (scatter(n.into()) % u64::from(tasks)) as u32;
            let service = victim / replicas;
            let (old, node) = live[victim as usize];
            self.acts.push(Act::End { service, node });
            let new = task_id(tasks + n);
            let start = cpu_time();
            self.scheduler.remove_task(old);
            replacing += cpu_time() - start;
            replacing += self.place(service, &[new])?;
            let placed = self.acts.last().expect("it was just placed").node();
            live[victim as usize] = (new, placed);
        }
        Ok(replacing)
    }
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("less than a second"))
}
