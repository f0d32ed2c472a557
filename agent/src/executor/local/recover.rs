//! What an earlier agent left on this machine: found again, or cleared away.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use swarm_agent_core::{Found, Recovered};
use swarm_model::{TaskId, Timestamp};
use swarm_runtime::{FoundState, Outcome};

use super::process::{exit, watch};
use super::{Local, OpenLocalError, network};
use crate::state::Stored;
use crate::text::chain;

/// Reads the records and finds the containers; those that run are watched from now on.
pub(super) fn recover(node: &Arc<Local>) -> Result<Recovered, OpenLocalError> {
    let stored = node.state.load()?;
    let mut containers = BTreeMap::new();
    for found in node.runtime.adopt()? {
        let Ok(task) = found.id.parse::<TaskId>() else {
            tracing::warn!(
                container.id = found.id,
                "this directory is no container of a task; it is left alone"
            );
            continue;
        };
        let state = match found.state {
            FoundState::Exited(record) => Found::Exited(exit(Outcome::Exited(record))),
            FoundState::Lost => {
                end_lost(node, task, &stored);
                Found::Exited(exit(Outcome::Lost))
            }
            FoundState::Running(container) => {
                let pid = container.init_pid();
                let container = Arc::new(container);
                node.with_task(task, |local| local.container = Some(Arc::clone(&container)));
                node.work.spawn(watch(Arc::clone(node), task, container));
                Found::Running {
                    pid: u32::try_from(pid).expect("a process's number"),
                    since: started_at(pid),
                }
            }
        };
        containers.insert(task, state);
    }
    let running = containers.values().filter(|found| matches!(found, Found::Running { .. })).count();
    if running > 0 {
        tracing::info!(containers = running, "found running containers of an earlier agent");
    }
    Ok(Recovered { node: stored.node, tasks: stored.tasks, containers, before_reboot: stored.before_reboot })
}

/// A container without a shim, whose processes may still run: its replacement must not meet them. After a reboot none
/// does, and its output is kept.
fn end_lost(node: &Local, task: TaskId, stored: &Stored) {
    if !stored.before_reboot.contains(&task)
        && let Err(error) = node.runtime.remove(&task.to_string())
    {
        tracing::error!(task.id = %task, error = chain(&error), "a container that lost its shim cannot be ended");
    }
}

/// When a process started; the epoch if that cannot be told.
fn started_at(pid: i32) -> Timestamp {
    let seconds_since_boot = || -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command, second field, may hold anything: fields are counted after its last parenthesis.
        let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(ticks / rustix::param::clock_ticks_per_second() as f64)
    };
    let boot = || -> Option<u64> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    };
    match (boot(), seconds_since_boot()) {
        (Some(boot), Some(since)) => {
            Timestamp::ZERO + Duration::from_secs(boot) + Duration::from_secs_f64(since.max(0.0))
        }
        _ => Timestamp::ZERO,
    }
}

/// Removes every container and network of this node, its records and its images. Volumes stay.
pub(super) fn clear(node: &Local) -> Result<(), String> {
    let mut failures = Vec::new();
    for found in node.runtime.adopt().map_err(|error| chain(&error))? {
        if let Err(error) = node.runtime.remove(&found.id) {
            failures.push(chain(&error));
        }
    }
    node.runtime.remove_cgroup_parent();
    node.tasks.lock().clear();
    failures.extend(network::clear(node).err());
    for name in ["state", "images", "containers"] {
        let path = node.config.directory.join(name);
        if let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            failures.push(format!("cannot remove {}: {error}", path.display()));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}
