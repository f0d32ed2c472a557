//! Containers: start, watch, stop, remove.

use std::sync::Arc;

use swarm_agent_core::{Event, Exit};
use swarm_model::{Assignment, TaskId};
use swarm_network::NodeNetwork;
use swarm_runtime::{Container, ContainerError, ContainerSpec, Network, Outcome, Signal, StartError};

use super::network::publish;
use super::{Local, answer_blocking, name};
use crate::container::{resolver_configuration, stop_signal};
use crate::ended::ended;
use crate::listening::listening;
use crate::text::chain;

pub(super) fn start(node: Arc<Local>, assignment: Arc<Assignment>) {
    let work = node.work.clone();
    work.spawn(async move {
        let task = assignment.task;
        let result = match node.network.ready().await {
            Err(error) => Err(error),
            Ok(network) => {
                let (worker, assignment) = (Arc::clone(&node), Arc::clone(&assignment));
                let start = move || start_container(&worker, &network, &assignment);
                tokio::task::spawn_blocking(start).await.unwrap_or_else(|error| Err(error.to_string()))
            }
        };
        let started = result.as_ref().ok().cloned();
        if let Some(container) = &started {
            tokio::select! {
                () = listening(container.init_pid(), &assignment.ports) => {}
                // It will not listen any more.
                _ = ended(container.shim_pidfd()) => {}
                () = node.stopping.cancelled() => {}
            }
        }
        let pid =
            |container: Arc<Container>| u32::try_from(container.init_pid()).expect("a process's number");
        node.answers.send(Event::Started { task, result: result.map(pid) }).await;
        if let Some(container) = started {
            watch(node, task, container).await;
        }
    });
}

fn start_container(
    node: &Local,
    network: &NodeNetwork,
    assignment: &Assignment,
) -> Result<Arc<Container>, String> {
    let task = assignment.task;
    let prepared = node.with_task(task, |local| local.prepared.take());
    let mut spec = prepared.ok_or("the task was not prepared by this process")?.spec;
    spec.etc_files.resolv_conf = Some(resolver_configuration());
    let name = name(assignment);
    let started = attach_and_start(node, network, assignment, spec);
    match started {
        Ok(container) => {
            let container = Arc::new(container);
            node.with_task(task, |local| local.container = Some(Arc::clone(&container)));
            Ok(container)
        }
        Err(error) => {
            detach(network, &name);
            Err(error)
        }
    }
}

fn attach_and_start(
    node: &Local,
    network: &NodeNetwork,
    assignment: &Assignment,
    mut spec: ContainerSpec,
) -> Result<Container, String> {
    let netns = network.attach(&name(assignment), assignment.address).map_err(|error| chain(&error))?;
    publish(network, assignment)?;
    spec.network = Network::Netns(netns);
    node.runtime.start(spec).map_err(|error| match error {
        // The operator knows which task it is; what failed comes first.
        StartError::Failed { failure, .. } => failure.to_string(),
        StartError::Invalid { invalid, .. } => invalid.to_string(),
        error => chain(&error),
    })
}

/// Waits for a container's end, lets its network go and tells how it ended. An agent that ends stops waiting.
pub(super) async fn watch(node: Arc<Local>, task: TaskId, container: Arc<Container>) {
    tokio::select! {
        () = node.stopping.cancelled() => return,
        // The shim ends right after the container.
        ended = ended(container.shim_pidfd()) => if let Err(error) = ended {
            tracing::error!(task.id = %task, %error, "a container's end cannot be waited for");
            return;
        }
    }
    let worker = Arc::clone(&node);
    let exit = tokio::task::spawn_blocking(move || {
        // First the network: a replacement may already be waiting for the same port of this node.
        if let Some(network) = worker.network.open_now() {
            detach(&network, &task.to_string());
        }
        if let Some(local) = worker.tasks.lock().get_mut(&task) {
            local.container = None;
        }
        exit_of(&container)
    });
    let exit = exit.await.unwrap_or_else(|error| Exit::Lost { reason: error.to_string() });
    node.answers.send(Event::Exited { task, exit }).await;
}

fn exit_of(container: &Container) -> Exit {
    match container.exit_status() {
        Ok(Some(outcome)) => exit(outcome),
        Ok(None) => Exit::Lost { reason: "its shim ended before it did".to_owned() },
        Err(error) => Exit::Lost { reason: chain(&error) },
    }
}

pub(super) fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Exited(exit) => {
            let signal = exit.signal.and_then(|number| Signal::from_number(number).ok());
            Exit::Code { code: exit.code, signal: signal.map(|signal| signal.to_string()), oom: exit.oom }
        }
        Outcome::Lost => Exit::Lost { reason: "its shim was killed, so nobody saw how it ended".to_owned() },
    }
}

fn detach(network: &NodeNetwork, name: &str) {
    if let Err(error) = network.detach(name) {
        tracing::warn!(task.id = name, error = chain(&error), "a task's network is not wholly removed");
    }
}

/// Sends the stop signal.
pub(super) fn stop(node: Arc<Local>, assignment: Arc<Assignment>) {
    let work = node.work.clone();
    work.spawn_blocking(move || {
        let spec = &assignment.spec.container;
        let task = assignment.task;
        let image = node.with_task(task, |local| local.image.clone());
        // Of a container that was taken over the image is looked up.
        let config = match image {
            Some(image) => Some(image.config.clone()),
            None => node.images.config_of(&spec.image),
        };
        // An invalid signal was refused when the task was prepared.
        let signal = stop_signal(spec, config.as_ref()).unwrap_or(Signal::TERM);
        send(&node, task, signal);
    });
}

pub(super) fn kill(node: &Local, task: TaskId) {
    send(node, task, Signal::KILL);
}

fn send(node: &Local, task: TaskId, signal: Signal) {
    let Some(container) = node.container(task) else { return };
    match container.signal(signal) {
        // Its end is on its way.
        Ok(()) | Err(ContainerError::NotRunning { .. }) => {}
        Err(error) => tracing::warn!(task.id = %task, error = chain(&error), "a container was not signalled"),
    }
}

pub(super) fn remove(node: Arc<Local>, task: TaskId) {
    let work = move |node: &Local| {
        node.runtime.remove(&task.to_string()).map_err(|error| chain(&error))?;
        if let Some(network) = node.network.open_now() {
            network.detach(&task.to_string()).map_err(|error| chain(&error))?;
        }
        node.tasks.lock().remove(&task);
        Ok(())
    };
    answer_blocking(node, work, move |result| Event::Removed { task, result });
}
