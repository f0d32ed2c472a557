//! The node's data path: opened once its place in the address plan is known, adopted from an earlier agent, watched
//! over.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use swarm_agent_core::{Event, Mesh, Place};
use swarm_model::{Assignment, PortMode};
use swarm_network::{HostPort, NodeNetwork, NodeNetworkConfig, Target};
use tokio::sync::watch;

use super::{Local, answer_blocking, name};
use crate::text::chain;

/// Between two looks whether other software has flushed what was programmed (network design, section 7).
const AUDIT_INTERVAL: Duration = Duration::from_secs(30);

/// For operations that are under way when the node leaves: 5 s in all.
const CLEAR_ATTEMPTS: u32 = 500;
const CLEAR_PAUSE: Duration = Duration::from_millis(10);

/// What the operator may choose about the data path; all nodes of a cluster must agree on VNI and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    pub vni: u32,
    pub vxlan_port: u16,
    /// `None`: that of the device that holds the data address.
    pub mtu: Option<u16>,
    /// Task networks kept ready, so that starting a container does not wait for one.
    pub prepared: usize,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            vni: NodeNetworkConfig::DEFAULT_VNI,
            vxlan_port: NodeNetworkConfig::DEFAULT_VXLAN_PORT,
            mtu: None,
            prepared: NodeNetworkConfig::DEFAULT_PREPARED,
        }
    }
}

/// The data path, or why there is none.
pub(super) struct NetworkSlot {
    state: watch::Sender<State>,
}

#[derive(Clone)]
enum State {
    Closed,
    Opening,
    Open { place: Place, network: Arc<NodeNetwork> },
    Failed(String),
}

impl Default for NetworkSlot {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::Closed) }
    }
}

impl NetworkSlot {
    /// The open data path; while it is being opened, waits for that.
    pub async fn ready(&self) -> Result<Arc<NodeNetwork>, String> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Opening)).await;
        match settled.as_deref() {
            Ok(State::Open { network, .. }) => Ok(Arc::clone(network)),
            Ok(State::Failed(error)) => Err(error.clone()),
            Ok(State::Closed | State::Opening) | Err(_) => Err("the node's network is not open".to_owned()),
        }
    }

    pub fn open_now(&self) -> Option<Arc<NodeNetwork>> {
        match &*self.state.borrow() {
            State::Open { network, .. } => Some(Arc::clone(network)),
            State::Closed | State::Opening | State::Failed(_) => None,
        }
    }

    /// Gives the data path away.
    pub fn take(&self) -> Option<Arc<NodeNetwork>> {
        match self.state.send_replace(State::Closed) {
            State::Open { network, .. } => Some(network),
            State::Closed | State::Opening | State::Failed(_) => None,
        }
    }
}

pub(super) fn open(node: Arc<Local>, place: Place) {
    let before = node.network.state.send_replace(State::Opening);
    let work = move |node: &Local| {
        let opened = match before {
            State::Open { place: old, network } if old == place => Ok(network),
            State::Closed | State::Opening | State::Open { .. } | State::Failed(_) => open_at(node, place),
        };
        node.network.state.send_replace(match &opened {
            Ok(network) => State::Open { place, network: Arc::clone(network) },
            Err(error) => State::Failed(format!("the node's network cannot be opened: {error}")),
        });
        opened.map(drop)
    };
    node.work.spawn(audit(Arc::clone(&node)));
    answer_blocking(node, work, |result| Event::NetworkOpened { result });
}

fn open_at(node: &Local, place: Place) -> Result<Arc<NodeNetwork>, String> {
    let options = &node.config.network;
    let network = NodeNetwork::open(NodeNetworkConfig {
        index: place.index,
        data_address: node.config.engine.data_address,
        pool: place.gateway_pool,
        vni: options.vni,
        vxlan_port: options.vxlan_port,
        mtu: options.mtu,
        prepared: options.prepared,
    })
    .map_err(|error| chain(&error))?;
    if adopt_all(node, &network) {
        match network.sweep() {
            Ok(0) => {}
            Ok(devices) => tracing::info!(devices, "removed networks of tasks that are gone"),
            Err(error) => tracing::warn!(error = chain(&error), "networks of tasks that are gone are left"),
        }
    }
    Ok(Arc::new(network))
}

/// Removes everything that the node has in its kernel.
pub(super) fn clear(node: &Local) -> Result<(), String> {
    let network = match (node.network.take(), node.state.load()) {
        (Some(network), _) => network,
        // It was not opened by this process, but may have been by an earlier one.
        (None, Ok(stored)) => match stored.node.place {
            Some(place) => open_at(node, place)?,
            None => return Ok(()),
        },
        (None, Err(error)) => return Err(chain(&error)),
    };
    let mut shared = network;
    for _ in 0..CLEAR_ATTEMPTS {
        match Arc::try_unwrap(shared) {
            Ok(network) => return network.teardown().map_err(|error| chain(&error)),
            // An operation is under way; none begins any more.
            Err(network) => shared = network,
        }
        std::thread::sleep(CLEAR_PAUSE);
    }
    Err("the node's network is still in use".to_owned())
}

/// Takes over the networks of the containers that run; `false` if one could not be. Then nothing is swept, because what
/// an earlier agent programmed still carries that container's traffic.
fn adopt_all(node: &Local, network: &NodeNetwork) -> bool {
    let stored = match node.state.load() {
        Ok(stored) => stored,
        Err(error) => {
            tracing::error!(error = chain(&error), "networks of running tasks cannot be taken over");
            return false;
        }
    };
    let running = stored.tasks.iter().filter(|record| node.container(record.assignment.task).is_some());
    running.fold(true, |all, record| match adopt(node, network, &record.assignment) {
        Ok(()) => all,
        Err(error) => {
            let task = record.assignment.task;
            tracing::error!(task.id = %task, error, "the network of a running task cannot be taken over");
            false
        }
    })
}

fn adopt(node: &Local, network: &NodeNetwork, assignment: &Assignment) -> Result<(), String> {
    let Some(container) = node.container(assignment.task) else { return Ok(()) };
    let path = format!("/proc/{}/ns/net", container.init_pid());
    let netns = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    let adopted = network.adopt(&name(assignment), assignment.address, netns.into());
    adopted.map_err(|error| chain(&error))?;
    publish(network, assignment)
}

/// Makes the task's ports lead to it.
pub(super) fn publish(network: &NodeNetwork, assignment: &Assignment) -> Result<(), String> {
    let (mut targets, mut host_ports) = (Vec::new(), Vec::new());
    for port in &assignment.ports {
        match (port.mode, port.published) {
            (PortMode::Ingress, _) => {
                targets.push(Target { protocol: port.protocol, target_port: port.target });
            }
            (PortMode::Host, Some(published)) => {
                host_ports.push(HostPort { protocol: port.protocol, published, target: port.target });
            }
            (PortMode::Host, None) => {}
        }
    }
    let name = name(assignment);
    network.set_targets(&name, &targets).map_err(|error| chain(&error))?;
    network.set_host_ports(&name, &host_ports).map_err(|error| chain(&error))
}

pub(super) fn set_ports(node: Arc<Local>, assignment: Arc<Assignment>) {
    let work = node.work.clone();
    work.spawn(async move {
        let network = match node.network.ready().await {
            Ok(network) => network,
            Err(error) => return tracing::error!(error, "a task's ports cannot be changed"),
        };
        let change = tokio::task::spawn_blocking(move || publish(&network, &assignment));
        if let Ok(Err(error)) = change.await {
            tracing::error!(error, "a task's ports cannot be changed");
        }
    });
}

pub(super) fn program_mesh(node: Arc<Local>, mesh: Arc<Mesh>) {
    let work = move |node: &Local| {
        let network = node.network.open_now().ok_or("the node's network is not open")?;
        let mesh = swarm_network::Mesh { nodes: mesh.nodes.clone(), ports: mesh.ports.clone() };
        network.apply_mesh(&mesh).map_err(|error| chain(&error))
    };
    answer_blocking(node, work, |result| Event::MeshProgrammed { result });
}

/// Restores what other software has flushed, for as long as the agent runs.
async fn audit(node: Arc<Local>) {
    let mut ticks = tokio::time::interval(AUDIT_INTERVAL);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = node.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(network) = node.network.open_now() else { return };
        match tokio::task::spawn_blocking(move || network.repair()).await {
            Ok(Ok(true)) => {
                tracing::warn!("other software had changed the node's network rules; restored them")
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::error!(error = chain(&error), "the node's network cannot be checked"),
            Err(_) => return,
        }
    }
}
