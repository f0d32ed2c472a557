//! Operations on this machine: images, containers, networks, volumes.
//!
//! ```text
//! DIR/state/        what the agent keeps about its tasks
//! DIR/images/       image content and unpacked layers
//! DIR/containers/   a directory per container: the runtime's
//! ```
//!
//! Named volumes have a directory of their own, and nothing here removes them.

mod network;
mod prepare;
mod process;
mod recover;

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use swarm_agent_core::{Change, Event, Operation, Recovered};
use swarm_image::RegistryOptions;
use swarm_model::{Assignment, EngineDescription, NodeId, TaskId};
use swarm_runtime::logs::{ReadOptions, Reader, Stream};
use swarm_runtime::{Container, ContainerSpec, LogLimits, Runtime, RuntimeConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Answers, Executor, LogLine, LogOptions, LogReader};
use crate::images::{Images, OpenImagesError, ReadyImage};
use crate::managers::Managers;
use crate::state::{StateError, StateStore};
use crate::text::chain;
pub use network::NetworkOptions;
use network::NetworkSlot;

/// What a [`LocalExecutor`] is told once.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The agent's own directory; made if missing, for its owner only.
    pub directory: PathBuf,
    /// Directory of the named volumes: the operator's data, which outlives the node's membership.
    pub volumes: PathBuf,
    pub node: NodeId,
    pub engine: EngineDescription,
    /// Cgroup below which containers get theirs: see `RuntimeConfig`.
    pub cgroup_parent: String,
    /// The program that answers to `shim`: see `RuntimeConfig`.
    pub shim_executable: PathBuf,
    pub log_limits: LogLimits,
    pub network: NetworkOptions,
    pub registry: RegistryOptions,
}

/// Why the node cannot be made ready for containers.
#[derive(Debug, thiserror::Error)]
pub enum OpenLocalError {
    #[error("cannot make {path}", path = path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the agent's state")]
    State(#[from] StateError),
    #[error("cannot open the images of this node")]
    Images(#[from] OpenImagesError),
    #[error("cannot open the container runtime")]
    Runtime(#[from] swarm_runtime::OpenError),
    #[error("cannot find the containers of this node")]
    Adopt(#[from] swarm_runtime::AdoptError),
}

/// Runs real containers on this machine.
pub struct LocalExecutor {
    node: Arc<Local>,
}

/// What the operations share.
struct Local {
    config: LocalConfig,
    state: StateStore,
    images: Images,
    runtime: Runtime,
    network: NetworkSlot,
    answers: Answers,
    tasks: Mutex<HashMap<TaskId, LocalTask>>,
    /// The agent ends: what waits, gives up.
    stopping: CancellationToken,
    /// Everything that is under way.
    work: TaskTracker,
}

/// What this process holds of a task.
#[derive(Default)]
struct LocalTask {
    /// Gives its preparation up.
    cancel: Option<CancellationToken>,
    prepared: Option<Prepared>,
    image: Option<Arc<ReadyImage>>,
    container: Option<Arc<Container>>,
}

/// A container that lacks only its network.
struct Prepared {
    spec: ContainerSpec,
}

impl LocalExecutor {
    /// Opens what is on disk, finds the containers that an earlier agent left, and watches them. Blocks for some file
    /// operations; to be called inside the async runtime.
    pub fn open(
        config: LocalConfig,
        managers: Managers,
        answers: Answers,
    ) -> Result<(Arc<Self>, Recovered), OpenLocalError> {
        let directory = &config.directory;
        let make = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        make.map_err(|source| OpenLocalError::Directory { path: directory.clone(), source })?;
        let runtime = Runtime::open(RuntimeConfig {
            root: directory.join("containers"),
            cgroup_parent: config.cgroup_parent.clone(),
            shim_executable: config.shim_executable.clone(),
            log_limits: config.log_limits,
        })?;
        let node = Arc::new(Local {
            state: StateStore::open(&directory.join("state"))?,
            images: Images::open(&directory.join("images"), managers, config.registry.clone())?,
            runtime,
            network: NetworkSlot::default(),
            answers,
            tasks: Mutex::default(),
            stopping: CancellationToken::new(),
            work: TaskTracker::new(),
            config,
        });
        let recovered = recover::recover(&node)?;
        Ok((Arc::new(Self { node }), recovered))
    }
}

impl Executor for LocalExecutor {
    fn persist(&self, changes: Vec<Change>) {
        if let Err(error) = self.node.state.write(changes) {
            tracing::error!(error = chain(&error), "the agent's state cannot be written");
        }
    }

    fn begin(&self, operation: Operation) {
        let node = Arc::clone(&self.node);
        match operation {
            Operation::OpenNetwork(place) => network::open(node, place),
            Operation::ProgramMesh(mesh) => network::program_mesh(node, mesh),
            Operation::SetPorts(assignment) => network::set_ports(node, assignment),
            Operation::Prepare(assignment) => prepare::prepare(node, assignment),
            Operation::CancelPrepare(task) => prepare::cancel(&node, task),
            Operation::Start(assignment) => process::start(node, assignment),
            Operation::Stop(assignment) => process::stop(node, assignment),
            Operation::Kill(task) => process::kill(&node, task),
            Operation::Remove(task) => process::remove(node, task),
            Operation::CollectGarbage { images } => {
                let work = node.work.clone();
                work.spawn(async move { node.images.collect_garbage(images).await });
            }
        }
    }

    fn open_log(&self, task: TaskId, options: LogOptions) -> Option<Box<dyn LogReader>> {
        let id = task.to_string();
        if !self.node.config.directory.join("containers").join(&id).exists() {
            return None;
        }
        let since = options.since.and_then(|since| jiff::Timestamp::try_from(since).ok());
        let reader = self.node.runtime.log_reader(&id, ReadOptions { tail: options.tail, since });
        Some(Box::new(LocalLog(reader)))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.node.stopping.cancel();
        self.node.work.close();
        self.node.work.wait().boxed()
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), String>> {
        let node = Arc::clone(&self.node);
        let clear = tokio::task::spawn_blocking(move || recover::clear(&node));
        clear.map(|done| done.unwrap_or_else(|error| Err(error.to_string()))).boxed()
    }
}

impl Local {
    fn with_task<T>(&self, task: TaskId, act: impl FnOnce(&mut LocalTask) -> T) -> T {
        act(self.tasks.lock().entry(task).or_default())
    }

    fn container(&self, task: TaskId) -> Option<Arc<Container>> {
        self.tasks.lock().get(&task)?.container.clone()
    }
}

/// Runs blocking work for an operation and sends its answer.
fn answer_blocking<T: Send + 'static>(
    node: Arc<Local>,
    work: impl FnOnce(&Local) -> Result<T, String> + Send + 'static,
    event: impl FnOnce(Result<T, String>) -> Event + Send + 'static,
) {
    let tracker = node.work.clone();
    tracker.spawn(async move {
        let worker = Arc::clone(&node);
        let result = tokio::task::spawn_blocking(move || work(&worker)).await;
        let result = result.unwrap_or_else(|error| Err(format!("it was interrupted: {error}")));
        node.answers.send(event(result)).await;
    });
}

/// The name of a task's container and network.
fn name(assignment: &Assignment) -> String {
    assignment.task.to_string()
}

struct LocalLog(Reader);

impl LogReader for LocalLog {
    fn read_batch(&mut self) -> Result<Vec<LogLine>, String> {
        let entries = self.0.read_batch().map_err(|error| chain(&error))?;
        let line = |entry: swarm_runtime::logs::Entry| LogLine {
            at_micros: u64::try_from(entry.time.as_microsecond()).unwrap_or(0),
            stderr: entry.stream == Stream::Stderr,
            bytes: entry.bytes,
            partial: entry.partial,
        };
        Ok(entries.into_iter().map(line).collect())
    }
}
