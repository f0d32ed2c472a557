//! What is done to the cluster, and undone again.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::{MANAGERS, NODES, checks};
use crate::e2e::Cluster;

/// Shorter than what makes a node count as down.
const BRIEFLY: Duration = Duration::from_secs(2);
/// Longer than that.
const LONG: Duration = Duration::from_secs(8);

/// A fault; what it hits beyond its name is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL to the leader's daemon, which starts again
    KillLeader,
    /// SIGKILL to any daemon, which starts again
    KillDaemon,
    /// SIGKILL to all daemons at once, which start again
    KillAll,
    /// SIGTERM to the leader's daemon, which starts again
    StopLeader,
    /// SIGSTOP for a moment to the leader's daemon
    PauseLeader,
    /// SIGSTOP to the leader's daemon for so long that it counts as down
    HangLeader,
    /// The leader cannot send to the other managers
    MuteLeader,
    /// The other managers cannot send to the leader
    DeafenLeader,
    /// The leader and the other managers cannot send to each other; workers reach all of them
    PartitionLeader,
    /// The leader's cable is pulled
    UnplugLeader,
    /// A worker's cable is pulled
    UnplugWorker,
    /// A host loses power, and boots
    CrashHost,
    /// The leader's disk is full
    FillDisk,
}

impl Fault {
    pub fn all() -> Vec<Self> {
        clap::ValueEnum::value_variants().to_vec()
    }

    /// Whether neither containers nor their clients may notice it.
    pub fn is_of_the_control_plane(self) -> bool {
        match self {
            Self::KillLeader
            | Self::KillDaemon
            | Self::KillAll
            | Self::StopLeader
            | Self::PauseLeader
            | Self::MuteLeader
            | Self::DeafenLeader
            | Self::PartitionLeader
            | Self::FillDisk => true,
            Self::HangLeader | Self::UnplugLeader | Self::UnplugWorker | Self::CrashHost => false,
        }
    }

    /// Does it, waits for what must come of it, and heals.
    pub(super) fn strike(self, cluster: &mut Cluster, random: &mut StdRng) -> anyhow::Result<()> {
        let leader = checks::wait_leader(cluster, 1..=MANAGERS, None)?;
        let others: Vec<u16> = (1..=MANAGERS).filter(|number| *number != leader).collect();
        match self {
            Self::KillLeader => {
                cluster.kill(leader);
                checks::wait_leader(cluster, others, Some(leader))?;
                cluster.restart(leader);
            }
            Self::KillDaemon => {
                let number = random.random_range(1..=NODES);
                cluster.kill(number);
                cluster.restart(number);
            }
            Self::KillAll => {
                (1..=NODES).for_each(|number| cluster.kill(number));
                (1..=NODES).for_each(|number| cluster.restart(number));
            }
            Self::StopLeader => {
                cluster.terminate(leader);
                checks::wait_leader(cluster, others, Some(leader))?;
                cluster.restart(leader);
            }
            Self::PauseLeader => {
                cluster.pause(leader);
                std::thread::sleep(BRIEFLY);
                cluster.resume(leader);
            }
            Self::HangLeader => {
                cluster.pause(leader);
                checks::wait_leader(cluster, others, Some(leader))?;
                std::thread::sleep(LONG);
                cluster.resume(leader);
            }
            Self::MuteLeader => cut(cluster, &[leader], &others)?,
            Self::DeafenLeader => cut(cluster, &others, &[leader])?,
            Self::PartitionLeader => {
                drop_packets(cluster, &[leader], &others, "add")?;
                cut(cluster, &others, &[leader])?;
                drop_packets(cluster, &[leader], &others, "del")?;
            }
            Self::UnplugLeader => {
                cluster.cut_off(leader);
                checks::wait_leader(cluster, others, Some(leader))?;
                std::thread::sleep(LONG);
                cluster.reconnect(leader);
            }
            Self::UnplugWorker => {
                let worker = random.random_range(MANAGERS + 1..=NODES);
                cluster.cut_off(worker);
                std::thread::sleep(LONG);
                cluster.reconnect(worker);
            }
            Self::CrashHost => {
                let number = random.random_range(1..=NODES);
                cluster.crash_host(number);
                let others: Vec<u16> = (1..=MANAGERS).filter(|other| *other != number).collect();
                checks::wait_leader(cluster, others, Some(number))?;
                cluster.restart(number);
            }
            Self::FillDisk => {
                cluster.fill_disk(leader);
                checks::wait_writable(cluster, &others)?;
                std::thread::sleep(BRIEFLY);
                cluster.free_disk(leader);
                // A manager that cannot write any more stops, and the service manager starts it again.
                cluster.restart_if_stopped(leader);
            }
        }
        Ok(())
    }
}

/// Until a leader is there that all other managers follow, none of `from` can send to any of `to`.
fn cut(cluster: &Cluster, from: &[u16], to: &[u16]) -> anyhow::Result<()> {
    drop_packets(cluster, from, to, "add")?;
    let (leader, others) = if from.len() == 1 { (from[0], to) } else { (to[0], from) };
    let result = checks::wait_leader(cluster, others.iter().copied(), Some(leader));
    drop_packets(cluster, from, to, "del")?;
    result.map(drop)
}

/// Adds or removes rules that drop the cluster's own traffic; that of containers passes.
fn drop_packets(cluster: &Cluster, from: &[u16], to: &[u16], change: &str) -> anyhow::Result<()> {
    for from in from {
        for address in to.iter().map(|to| cluster.address(*to)) {
            for port in ["sport", "dport"] {
                rule(cluster, *from, change, address, port)?;
            }
        }
    }
    Ok(())
}

fn rule(cluster: &Cluster, number: u16, change: &str, to: Ipv4Addr, port: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    let to = to.to_string();
    command.args(["rule", change, "pref", "100", "to", &to, "ipproto", "tcp", port, "2377", "blackhole"]);
    let status = cluster.network().spawn(number, &mut command).context("ip, of iproute2")?.wait()?;
    ensure!(status.success(), "node {number}: {command:?}: {status}");
    Ok(())
}
