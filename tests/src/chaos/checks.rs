//! What must be true of a whole cluster, asked of every manager and of the hosts themselves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::{MANAGERS, NODES, REPLICAS, SERVICE};
use crate::e2e::Cluster;

/// For a healed cluster to be whole. The figures are the benchmarks' matter; this only tells slow from never.
const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// Which container runs each task of the service: process numbers on this machine by task.
pub fn containers(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, i32>> {
    let (tasks, _) = whole(cluster)?;
    Ok(tasks.into_iter().map(|task| (task.clone(), cluster.pid(&task))).collect())
}

/// Waits until everything is as it should be; gives the leader.
pub fn wait_whole(cluster: &Cluster) -> anyhow::Result<u16> {
    patiently(|| whole(cluster).map(|(_, leader)| leader))
}

/// Waits until these managers agree on a leader; on another one than `not`, if that is said.
pub fn wait_leader(
    cluster: &Cluster,
    managers: impl IntoIterator<Item = u16>,
    not: Option<u16>,
) -> anyhow::Result<u16> {
    let managers: Vec<u16> = managers.into_iter().collect();
    patiently(|| {
        let leader = agreed_leader(cluster, &managers)?;
        ensure!(Some(leader) != not, "node {leader} still leads");
        Ok(leader)
    })
}

/// Waits until a write at each of these managers is taken.
pub fn wait_writable(cluster: &Cluster, managers: &[u16]) -> anyhow::Result<()> {
    patiently(|| {
        for number in managers {
            let output =
                cluster.ctl_at(*number, &["service", "update", "-d", "--label-add", "written=1", SERVICE]);
            ensure!(output.code == 0, "node {number} takes no write: {}", output.stderr.trim());
        }
        Ok(())
    })
}

fn patiently<T>(mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let end = Instant::now() + LIMIT;
    loop {
        match attempt() {
            Err(_) if Instant::now() < end => std::thread::sleep(POLL),
            result => return result,
        }
    }
}

fn agreed_leader(cluster: &Cluster, managers: &[u16]) -> anyhow::Result<u16> {
    let mut leaders =
        managers.iter().map(|number| leader(cluster, *number)).collect::<Result<Vec<_>, _>>()?;
    leaders.dedup();
    match leaders[..] {
        [leader] => Ok(leader),
        _ => bail!("the managers {managers:?} follow {leaders:?}"),
    }
}

fn leader(cluster: &Cluster, number: u16) -> anyhow::Result<u16> {
    let lines = ask(cluster, number, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])?;
    let leader = lines.lines().find_map(|line| line.strip_suffix(" Leader")?.strip_prefix("node-"));
    match leader.and_then(|number| number.parse().ok()) {
        Some(leader) => Ok(leader),
        None => bail!("node {number} knows no leader"),
    }
}

/// The ids of the tasks that run, and the leader.
fn whole(cluster: &Cluster) -> anyhow::Result<(Vec<String>, u16)> {
    let managers: Vec<u16> = (1..=MANAGERS).collect();
    let leader = agreed_leader(cluster, &managers)?;
    let (mut services, mut tasks) = (Vec::new(), Vec::new());
    for number in managers {
        let states = ask(
            cluster,
            number,
            &["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"],
        )?;
        let ready = states.lines().filter(|line| line.contains(" Ready ")).count();
        ensure!(ready == usize::from(NODES), "as node {number} sees it:\n{states}");
        ensure!(!states.contains("Unreachable"), "as node {number} sees it:\n{states}");
        services.push(ask(cluster, number, &["service", "inspect", SERVICE])?);
        let format = "{{.FullID}} {{.DesiredState}} {{.State}}";
        let rows = ask(cluster, number, &["service", "ps", "--no-trunc", "--format", format, SERVICE])?;
        let mut running: Vec<String> = (rows.lines())
            .filter_map(|row| row.split_once(" Running Running").map(|(id, _)| id.to_owned()))
            .collect();
        running.sort();
        ensure!(running.len() == REPLICAS, "as node {number} sees it:\n{rows}");
        tasks.push(running);
    }
    services.dedup();
    tasks.dedup();
    ensure!(services.len() == 1, "the managers disagree about the service: {services:?}");
    ensure!(tasks.len() == 1, "the managers disagree about the tasks: {tasks:?}");
    // On the hosts themselves: one daemon, and a shim for each task.
    let shims: usize = (1..=NODES).map(|number| cluster.processes(number).len().saturating_sub(1)).sum();
    ensure!(shims == REPLICAS, "{shims} containers on the hosts, not {REPLICAS}");
    Ok((tasks.remove(0), leader))
}

fn ask(cluster: &Cluster, number: u16, command: &[&str]) -> anyhow::Result<String> {
    let output = cluster.ctl_at(number, command);
    ensure!(output.code == 0, "node {number}: swarmctl {command:?}: {}", output.stderr.trim());
    Ok(output.stdout)
}
