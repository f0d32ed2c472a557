//! Logs: subscriptions of operators, and the calls by which agents answer them.

use swarm_proto::v1;
use swarm_proto::v1::logs_server::Logs as LogService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::sessions::calling_node;
use super::status::from_api;
use crate::logs::{Logs, PublishError, Publisher, Target, Wanted};

/// Entries on their way to one subscriber.
const MAX_QUEUED: usize = 16;

pub struct LogCalls {
    pub logs: Logs,
    pub stopping: CancellationToken,
}

#[tonic::async_trait]
impl LogService for LogCalls {
    type SubscribeStream = ReceiverStream<Result<v1::LogEntry, Status>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeLogsRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        let target = match (request.service_id, request.task_id) {
            (service, task) if task.is_empty() && !service.is_empty() => Target::Service(service),
            (service, task) if service.is_empty() && !task.is_empty() => Target::Task(task),
            _ => return Err(Status::invalid_argument("logs are of one service or of one task")),
        };
        let since_micros = Some(request.since).filter(|since| *since != 0);
        let wanted = Wanted { target, follow: request.follow, tail: request.tail, since_micros };
        let mut entries = self.logs.subscribe(wanted).await.map_err(|error| from_api(&error))?;
        let (outgoing, stream) = mpsc::channel(MAX_QUEUED);
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            loop {
                let entry = tokio::select! {
                    entry = entries.recv() => entry.map(Ok),
                    () = stopping.cancelled() => Some(Err(Status::unavailable("this manager stops"))),
                    () = outgoing.closed() => None,
                };
                let Some(entry) = entry else { return };
                let last = entry.is_err();
                if outgoing.send(entry).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn publish(
        &self,
        request: Request<Streaming<v1::PublishLogsRequest>>,
    ) -> Result<Response<v1::PublishLogsResponse>, Status> {
        let node = calling_node(&request)?;
        let mut batches = request.into_inner();
        let Some(first) = batches.message().await? else {
            return Err(Status::invalid_argument("the call names no subscription"));
        };
        let publisher = self.logs.publish(node, first.subscription_id).await?;
        publisher.send(first.entries).await?;
        tokio::select! {
            relayed = relay(&publisher, &mut batches) => relayed?,
            () = publisher.abandoned() => return Err(PublishError::Gone.into()),
            () = self.stopping.cancelled() => return Err(Status::unavailable("this manager stops")),
        }
        publisher.finish().await;
        Ok(Response::new(v1::PublishLogsResponse {}))
    }
}

async fn relay(publisher: &Publisher, batches: &mut Streaming<v1::PublishLogsRequest>) -> Result<(), Status> {
    while let Some(batch) = batches.message().await? {
        publisher.send(batch.entries).await?;
    }
    Ok(())
}

impl From<PublishError> for Status {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Unknown(_) => Self::not_found(error.to_string()),
            PublishError::ForeignTask => Self::permission_denied(error.to_string()),
            PublishError::Gone => Self::cancelled(error.to_string()),
        }
    }
}
