//! One task's output for one subscription: from where it is to begin to its end.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use swarm_model::{LogSubscription, TaskId};
use swarm_proto::v1::{LogEntry, PublishLogsRequest};
use tokio::sync::mpsc;

use crate::agent::{Questions, TaskAnswer};
use crate::executor::{Executor, LogLine, LogOptions, LogReader};

/// Between two looks for new output: short for the eye, and some 10 file reads a second per followed task.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Follower {
    pub task: TaskId,
    pub subscription: LogSubscription,
    pub executor: Arc<dyn Executor>,
    pub questions: Questions,
    pub hostname: Arc<str>,
    pub batches: mpsc::Sender<PublishLogsRequest>,
}

/// Nobody listens any more.
struct Hangup;

impl Follower {
    pub async fn run(self) {
        // Both ways it ends: everything is sent, or nobody listens.
        let _ = self.follow().await;
    }

    async fn follow(&self) -> Result<(), Hangup> {
        let mut reader = None;
        loop {
            // Asked before reading: what a task wrote before it ended is there once it is known to have ended.
            let Some(answer) = self.questions.task(self.task).await else { return Ok(()) };
            if reader.is_none() {
                reader = self.executor.open_log(self.task, self.options());
            }
            if let Some(open) = reader.take() {
                reader = Some(self.send_all(open, &answer).await?);
            }
            if answer.state.is_final() || !self.subscription.follow {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.batches.closed() => return Err(Hangup),
            }
        }
    }

    fn options(&self) -> LogOptions {
        let since = |micros| -> Option<SystemTime> { UNIX_EPOCH.checked_add(Duration::from_micros(micros)) };
        LogOptions { tail: self.subscription.tail, since: self.subscription.since_micros.and_then(since) }
    }

    /// Sends everything that has been written so far.
    async fn send_all(
        &self,
        mut reader: Box<dyn LogReader>,
        answer: &TaskAnswer,
    ) -> Result<Box<dyn LogReader>, Hangup> {
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let lines = reader.read_batch();
                (reader, lines)
            });
            let lines;
            (reader, lines) = read.await.map_err(|_| Hangup)?;
            let entries = match lines {
                Ok(lines) if lines.is_empty() => return Ok(reader),
                Ok(lines) => lines.into_iter().map(|line| self.entry(line, answer)).collect(),
                Err(error) => {
                    self.send(vec![self.notice(error, answer)]).await?;
                    return Err(Hangup);
                }
            };
            self.send(entries).await?;
        }
    }

    async fn send(&self, entries: Vec<LogEntry>) -> Result<(), Hangup> {
        let request = PublishLogsRequest { subscription_id: self.subscription.id, entries };
        self.batches.send(request).await.map_err(|_| Hangup)
    }

    fn entry(&self, line: LogLine, answer: &TaskAnswer) -> LogEntry {
        LogEntry {
            task_id: self.task.to_string(),
            service_name: answer.service_name.clone(),
            slot: answer.slot,
            node_hostname: self.hostname.to_string(),
            at: line.at_micros,
            stderr: line.stderr,
            line: line.bytes.into(),
            partial: line.partial,
            notice: String::new(),
        }
    }

    fn notice(&self, notice: String, answer: &TaskAnswer) -> LogEntry {
        let nothing = LogLine { at_micros: 0, stderr: false, bytes: Vec::new(), partial: false };
        LogEntry { notice, ..self.entry(nothing, answer) }
    }
}
