//! Preparing a task: its image here and unpacked, its container's specification made.

use std::sync::Arc;

use swarm_agent_core::{Event, PrepareFailure};
use swarm_model::{Assignment, TaskId};
use tokio_util::sync::CancellationToken;

use super::{Local, Prepared};
use crate::container::{NodeFacts, container_spec, stop_signal};
use crate::text::chain;

pub(super) fn prepare(node: Arc<Local>, assignment: Arc<Assignment>) {
    let task = assignment.task;
    let cancel = CancellationToken::new();
    node.with_task(task, |local| local.cancel = Some(cancel.clone()));
    let work = node.work.clone();
    work.spawn(async move {
        let result = tokio::select! {
            biased;
            result = make_ready(&node, &assignment) => result,
            () = cancel.cancelled() => Err(PrepareFailure::Final("it was not wanted any more".to_owned())),
            () = node.stopping.cancelled() => return,
        };
        node.answers.send(Event::Prepared { task, result }).await;
    });
}

pub(super) fn cancel(node: &Local, task: TaskId) {
    if let Some(cancel) = node.tasks.lock().get_mut(&task).and_then(|local| local.cancel.take()) {
        cancel.cancel();
    }
}

async fn make_ready(node: &Local, assignment: &Assignment) -> Result<(), PrepareFailure> {
    let task = assignment.task;
    let wanted = &assignment.spec.container.image;
    let progress = |message| node.answers.post_lossy(Event::Progress { task, message });
    let image = node.images.ensure(wanted, progress).await.map_err(|error| match error.may_pass() {
        true => PrepareFailure::Transient(error.to_string()),
        false => PrepareFailure::Final(error.to_string()),
    })?;
    let refuse = |error: &dyn std::error::Error| PrepareFailure::Final(chain(error));
    stop_signal(&assignment.spec.container, Some(&image.config)).map_err(|error| refuse(&error))?;
    let facts = NodeFacts {
        node: node.config.node,
        engine: node.config.engine.clone(),
        volumes: node.config.volumes.clone(),
        // Read when the container starts.
        resolver: String::new(),
    };
    let spec = container_spec(assignment, &image.config, image.layers.clone(), &facts);
    let prepared = Prepared { spec: spec.map_err(|error| refuse(&error))? };
    node.with_task(task, |local| {
        local.prepared = Some(prepared);
        local.image = Some(image);
        local.cancel = None;
    });
    Ok(())
}
