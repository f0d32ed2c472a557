//! The output of this node's containers, sent to managers that ask for it on the session: one call per subscription,
//! in bounded batches, as fast as the manager takes them.

mod follow;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use swarm_model::LogSubscription;
use swarm_proto::v1::PublishLogsRequest;
use swarm_proto::v1::logs_client::LogsClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::Questions;
use crate::executor::Executor;
use crate::managers::Managers;
use follow::Follower;

/// Batches that wait for the manager, each of at most some 256 KiB of log files.
const BATCHES_LIMIT: usize = 4;
/// Subscriptions at the same time; one more is not served, and its manager says so.
const SUBSCRIPTIONS_LIMIT: usize = 256;

/// All log streams of this node. Clones are the same.
#[derive(Clone)]
pub(crate) struct LogStreams {
    executor: Arc<dyn Executor>,
    questions: Questions,
    hostname: Arc<str>,
    managers: Managers,
    streams: Arc<Mutex<BTreeMap<u64, AbortOnDropHandle<()>>>>,
}

impl LogStreams {
    pub fn new(
        executor: Arc<dyn Executor>,
        questions: Questions,
        hostname: Arc<str>,
        managers: Managers,
    ) -> Self {
        Self { executor, questions, hostname, managers, streams: Arc::default() }
    }

    /// Begins to answer a manager's subscription.
    pub fn begin(&self, subscription: LogSubscription, manager: String) {
        let mut streams = self.streams.lock();
        streams.retain(|_, stream| !stream.is_finished());
        if streams.len() >= SUBSCRIPTIONS_LIMIT {
            tracing::warn!(
                subscription = subscription.id,
                "too many log subscriptions; this one is not served"
            );
            return;
        }
        let (id, this) = (subscription.id, self.clone());
        let stream = tokio::spawn(async move { this.publish(subscription, &manager).await });
        streams.insert(id, AbortOnDropHandle::new(stream));
    }

    pub fn cancel(&self, id: u64) {
        self.streams.lock().remove(&id);
    }

    pub fn cancel_all(&self) {
        self.streams.lock().clear();
    }

    /// Sends until everything asked for is sent, or the manager drops the call.
    async fn publish(&self, subscription: LogSubscription, manager: &str) {
        // A connection of its own: whoever reads slowly holds up nothing else.
        let channel = match self.managers.dial(manager).await {
            Ok(channel) => channel,
            Err(error) => return tracing::warn!(%error, "logs cannot be sent"),
        };
        let (batches, outbound) = mpsc::channel(BATCHES_LIMIT);
        let id = subscription.id;
        // A first message without entries names the subscription, so that the manager knows the call even if there is
        // nothing to send for long.
        let hello = PublishLogsRequest { subscription_id: id, entries: Vec::new() };
        batches.send(hello).await.expect("its receiver is held below");
        let mut followers = JoinSet::new();
        for task in &subscription.tasks {
            let follower = Follower {
                task: *task,
                subscription: subscription.clone(),
                executor: Arc::clone(&self.executor),
                questions: self.questions.clone(),
                hostname: Arc::clone(&self.hostname),
                batches: batches.clone(),
            };
            followers.spawn(follower.run());
        }
        drop(batches);
        let mut client = LogsClient::new(channel);
        if let Err(status) = client.publish(ReceiverStream::new(outbound)).await {
            tracing::debug!(subscription = id, code = ?status.code(), "a log stream was ended by the manager");
        }
    }
}
