//! The two threads that write: the log, on the way of every acknowledgement, and checkpoints, beside it.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use swarm_manager_core::door::{CheckpointCut, CheckpointState, Event, Persist};
use tokio::sync::watch;
use tracing::error;

use super::inbox::{Inbox, Item};
use crate::checkpoint::{CheckpointError, CheckpointStore};
use crate::log::{self, LogError, LogStore};

/// The way to both threads. Dropping it ends them, after what is queued.
pub struct Disk {
    log: mpsc::Sender<LogWork>,
    checkpoints: mpsc::Sender<CheckpointWork>,
}

pub(super) enum LogWork {
    Persist(Persist),
    Truncate(u64),
}

enum CheckpointWork {
    Add(Box<CheckpointCut>),
    /// A received snapshot; the log waits for it.
    Replace(CheckpointState, mpsc::Sender<Result<(), CheckpointError>>),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("cannot write the log")]
    Log(#[from] LogError),
    #[error("cannot write a received snapshot")]
    Snapshot(#[from] CheckpointError),
    #[error("the checkpoint thread is gone")]
    Gone,
}

/// Finishes what a crash may have cut off: a received snapshot was installed, and the log that it replaces was not yet
/// reset. What comes after the snapshot must not be appended to that.
pub(super) fn finish_install(
    log: &mut impl LogStore,
    held: &mut log::Recovered,
    checkpoint: Option<&CheckpointState>,
) -> Result<(), LogError> {
    let (Some(checkpoint), Some(last)) = (checkpoint, held.entries.last()) else { return Ok(()) };
    let at_checkpoint = held.entries.iter().find(|entry| entry.index == checkpoint.index);
    let forked = at_checkpoint.is_some_and(|entry| entry.term != checkpoint.term);
    if last.index < checkpoint.index || forked {
        held.entries.clear();
        log.reset(checkpoint.index)?;
        log.sync()?;
    }
    Ok(())
}

impl Disk {
    pub fn start(
        log: Box<dyn LogStore>,
        store: CheckpointStore,
        inbox: Inbox,
        fails: Arc<watch::Sender<bool>>,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (checkpoints, checkpoint_work) = mpsc::channel();
        let (log_sender, log_work) = mpsc::channel();
        let failure = Failure { inbox: inbox.clone(), fails };
        let writer = CheckpointWriter { store, inbox: inbox.clone(), failure: failure.clone() };
        let checkpoint_thread = std::thread::Builder::new()
            .name("manager-state".to_owned())
            .spawn(move || writer.run(&checkpoint_work))?;
        let writer = LogWriter { log, inbox, install: installer(checkpoints.clone()) };
        let log_thread = std::thread::Builder::new()
            .name("manager-log".to_owned())
            .spawn(move || writer.run(&log_work, &failure))?;
        Ok((Self { log: log_sender, checkpoints }, vec![log_thread, checkpoint_thread]))
    }

    // A thread that ended has told the core why.
    pub fn persist(&self, persist: Persist) {
        let _ = self.log.send(LogWork::Persist(persist));
    }

    pub fn truncate(&self, up_to: u64) {
        let _ = self.log.send(LogWork::Truncate(up_to));
    }

    pub fn checkpoint(&self, checkpoint: Box<CheckpointCut>) {
        let _ = self.checkpoints.send(CheckpointWork::Add(checkpoint));
    }
}

/// Tells the core and the daemon that this manager's disk is of no use any more.
#[derive(Clone)]
struct Failure {
    inbox: Inbox,
    fails: Arc<watch::Sender<bool>>,
}

impl Failure {
    fn report(&self, cause: &dyn std::error::Error) {
        let mut text = cause.to_string();
        let mut source = cause.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        error!(error = text, "the manager stops: its disk failed, and nothing more can be acknowledged");
        let _ = self.inbox.put(Item::Event(Event::PersistFailed, None));
        let _ = self.fails.send(true);
    }
}

/// Makes a received snapshot durable in place of the state.
pub(super) type Install = Box<dyn FnMut(CheckpointState) -> Result<(), WriteError> + Send>;

fn installer(checkpoints: mpsc::Sender<CheckpointWork>) -> Install {
    Box::new(move |state| {
        let (done, answer) = mpsc::channel();
        checkpoints.send(CheckpointWork::Replace(state, done)).map_err(|_| WriteError::Gone)?;
        Ok(answer.recv().map_err(|_| WriteError::Gone)??)
    })
}

pub(super) struct LogWriter {
    pub log: Box<dyn LogStore>,
    pub inbox: Inbox,
    pub install: Install,
}

impl LogWriter {
    fn run(mut self, work: &mpsc::Receiver<LogWork>, failure: &Failure) {
        super::run::go_first();
        while let Ok(first) = work.recv() {
            if let Err(error) = self.group(first, work) {
                failure.report(&error);
                return;
            }
        }
        if let Err(error) = self.log.close() {
            failure.report(&WriteError::from(error));
        }
    }

    /// Everything that waits, with one sync.
    pub fn group(&mut self, first: LogWork, work: &mpsc::Receiver<LogWork>) -> Result<(), WriteError> {
        let mut written = Vec::new();
        let mut must_sync = false;
        let mut truncate = None;
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                LogWork::Persist(persist) => {
                    must_sync |= persist.must_sync;
                    written.push(persist.ready);
                    self.append(persist)?;
                }
                LogWork::Truncate(up_to) => truncate = Some(up_to),
            }
            next = work.try_recv().ok();
        }
        if must_sync {
            self.log.sync()?;
        }
        for ready in written {
            let _ = self.inbox.put(Item::Event(Event::Persisted { ready }, None));
        }
        if let Some(up_to) = truncate {
            self.log.truncate(up_to)?;
        }
        Ok(())
    }

    fn append(&mut self, persist: Persist) -> Result<(), WriteError> {
        if let Some(state) = persist.checkpoint {
            let index = state.index;
            (self.install)(state)?;
            self.log.reset(index)?;
        }
        Ok(self.log.append(persist.hard_state.as_ref(), &persist.entries)?)
    }
}

struct CheckpointWriter {
    store: CheckpointStore,
    inbox: Inbox,
    failure: Failure,
}

impl CheckpointWriter {
    fn run(mut self, work: &mpsc::Receiver<CheckpointWork>) {
        while let Ok(work) = work.recv() {
            match work {
                CheckpointWork::Add(cut) => {
                    let index = cut.index;
                    if let Err(error) = self.store.write(&cut.encode()) {
                        return self.failure.report(&error);
                    }
                    let _ = self.inbox.put(Item::Event(Event::Checkpointed { index }, None));
                }
                CheckpointWork::Replace(state, done) => {
                    let _ = done.send(self.store.replace(&state));
                }
            }
        }
    }
}
