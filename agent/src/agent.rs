//! The agent's life: it feeds the core what happens, and does what the core answers.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use swarm_agent_core::{AgentCore, Config, Connection, Effect, Event, Parallelism, Recovered};
use swarm_model::{ClusterId, EngineDescription, NodeId, TaskId, TaskState};
use swarm_proto::v1 as wire;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Clock;
use crate::executor::{Answers, Executor};
use crate::logs::LogStreams;
use crate::managers::Managers;
use crate::session::Sessions;

/// Events that wait for the core; whoever has more waits too.
const INBOX_LIMIT: usize = 4_096;
/// Events handled before their effects are done: more only delays the first.
const BATCH_LIMIT: usize = 1_024;
/// For operations that are under way when the agent ends.
const STOP_LIMIT: Duration = Duration::from_secs(5);
const QUESTIONS_LIMIT: usize = 64;

/// What an agent is told once.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub engine: EngineDescription,
    /// `host:port` of managers, used until a manager has told its own list.
    pub managers: Vec<String>,
    pub parallelism: Parallelism,
}

/// How the agent does, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatus {
    pub connection: Connection,
    /// Tasks of which anything is on this node.
    pub tasks: usize,
}

/// A running agent. Dropping it ends it at once; containers go on.
pub struct Agent {
    stop: CancellationToken,
    status: watch::Receiver<AgentStatus>,
    driver: AbortOnDropHandle<()>,
    executor: Arc<dyn Executor>,
    answers: Answers,
}

/// What the rest of the agent may ask the core.
#[derive(Debug, Clone)]
pub(crate) struct Questions(mpsc::Sender<Question>);

#[derive(Debug)]
struct Question {
    task: TaskId,
    answer: oneshot::Sender<Option<TaskAnswer>>,
}

#[derive(Debug, Clone)]
pub(crate) struct TaskAnswer {
    pub state: TaskState,
    pub service_name: String,
    pub slot: u32,
}

impl Questions {
    /// `None` for a task that is not assigned to this node.
    pub async fn task(&self, task: TaskId) -> Option<TaskAnswer> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Question { task, answer }).await.ok()?;
        answered.await.ok()?
    }
}

impl Agent {
    /// Starts an agent whose node is `executor`: `open` makes it, and tells what an earlier agent left.
    pub fn start<E: Executor, Error>(
        config: AgentConfig,
        managers: Managers,
        open: impl FnOnce(Answers) -> Result<(Arc<E>, Recovered), Error>,
    ) -> Result<Self, Error> {
        let (events, inbox) = mpsc::channel(INBOX_LIMIT);
        let answers = Answers::new(events);
        let (executor, recovered) = open(answers.clone())?;
        let executor: Arc<dyn Executor> = executor;
        let (questions, asked) = mpsc::channel(QUESTIONS_LIMIT);
        let hostname = Arc::from(config.engine.hostname.as_str());
        let logs = LogStreams::new(Arc::clone(&executor), Questions(questions), hostname, managers.clone());
        managers.set_addresses(match recovered.node.managers.as_slice() {
            [] => config.managers.clone(),
            known => known.to_vec(),
        });
        let clock = Clock::start();
        let core = AgentCore::new(core_config(config), recovered, clock.now());
        let (status, watch) = watch::channel(status_of(&core));
        let sessions = Sessions::new(managers, answers.clone(), logs);
        let stop = CancellationToken::new();
        let node = Arc::clone(&executor);
        let driver =
            Driver { core, clock, inbox, asked, executor: node, sessions, status, effects: Vec::new() };
        let driver = AbortOnDropHandle::new(tokio::spawn(driver.run(stop.clone())));
        Ok(Self { stop, status: watch, driver, executor, answers })
    }

    /// Newest status; `changed` of the receiver waits for the next.
    pub fn status(&self) -> watch::Receiver<AgentStatus> {
        self.status.clone()
    }

    /// Tries these managers first: all that it knew may be gone.
    pub fn name_managers(&self, managers: Vec<String>) {
        self.answers.post(Event::ManagersNamed { managers });
    }

    /// Ends the agent: nothing new is begun, the session is closed. Containers go on, and the next agent finds them.
    pub async fn stop(self) {
        self.end().await;
    }

    /// Ends the agent and removes everything of the cluster from this node: containers, networks, records, images.
    ///
    /// # Errors
    /// What is left, and why. Trying again needs an agent that is started and left again.
    pub async fn leave(self) -> Result<(), String> {
        let executor = self.end().await;
        executor.clear().await
    }

    async fn end(self) -> Arc<dyn Executor> {
        self.stop.cancel();
        if let Err(error) = self.driver.await
            && error.is_panic()
        {
            tracing::error!("the agent ended by a panic");
        }
        self.executor
    }
}

fn core_config(config: AgentConfig) -> Config {
    Config {
        cluster: config.cluster,
        node: config.node,
        engine: config.engine,
        managers: config.managers,
        seed: rand::random(),
        parallelism: config.parallelism,
    }
}

fn status_of(core: &AgentCore) -> AgentStatus {
    AgentStatus { connection: core.connection(), tasks: core.task_count() }
}

/// The one task that owns the core.
struct Driver {
    core: AgentCore,
    clock: Clock,
    inbox: mpsc::Receiver<Event>,
    asked: mpsc::Receiver<Question>,
    executor: Arc<dyn Executor>,
    sessions: Sessions,
    status: watch::Sender<AgentStatus>,
    effects: Vec<Effect>,
}

impl Driver {
    async fn run(mut self, stop: CancellationToken) {
        self.batch(Vec::new());
        let mut events = Vec::new();
        loop {
            let wakeup = self.core.next_wakeup().map(|at| self.clock.instant(at));
            let timer = async {
                match wakeup {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                received = self.inbox.recv_many(&mut events, BATCH_LIMIT) => {
                    assert!(received > 0, "the sessions hold a sender");
                }
                Some(question) = self.asked.recv() => {
                    self.answer(question);
                    continue;
                }
                () = timer => {}
            }
            self.batch(std::mem::take(&mut events));
        }
        drop(self.sessions);
        // Starts that are under way are answered into the inbox until the last of them ended.
        let drain = async { while self.inbox.recv().await.is_some() {} };
        tokio::select! {
            () = self.executor.stop() => {}
            () = drain => {}
            () = tokio::time::sleep(STOP_LIMIT) => tracing::warn!("operations are still under way"),
        }
    }

    fn batch(&mut self, events: Vec<Event>) {
        let now = self.clock.now();
        let mut effects = std::mem::take(&mut self.effects);
        for event in events.into_iter().chain([Event::Wakeup]) {
            self.core.handle(now, event, &mut effects);
        }
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
        let status = status_of(&self.core);
        self.status.send_if_modified(|old| {
            *old != status && {
                *old = status;
                true
            }
        });
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(changes) => self.executor.persist(changes),
            Effect::Operate(operation) => self.executor.begin(operation),
            Effect::Connect { session, manager } => self.sessions.connect(session, manager),
            Effect::Register { session, registration } => self.sessions.register(session, &registration),
            Effect::Send { session, message } => {
                self.sessions.send(session, wire::AgentMessage::from(&message));
            }
            Effect::Disconnect { session } => self.sessions.disconnect(session),
        }
    }

    fn answer(&self, question: Question) {
        let answer = self.core.task(question.task).map(|(assignment, status)| TaskAnswer {
            state: status.state,
            service_name: assignment.service_name.clone(),
            slot: assignment.slot,
        });
        // Whoever asked may have gone.
        let _ = question.answer.send(answer);
    }
}
