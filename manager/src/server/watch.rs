//! Watches: everything that exists, then what changes. A reader that is slower than the changes gets each object as it is
//! when its turn comes; one that falls far behind is cut, and watches again.

use std::sync::Arc;
use std::time::Duration;

use swarm_manager_core::api::{Change, Request as Ask, Response as Answer};
use swarm_manager_core::door::{Leadership, Publication};
use swarm_model::ServiceId;
use swarm_proto::v1;
use swarm_proto::v1::watch_event::Event;
use swarm_proto::v1::watch_server::Watch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::pending::Pending;
use super::status::from_api;
use super::views;
use crate::engine::Engine;

/// Watches at the same time. Each costs what it is behind, at most some 10 MiB.
const MAX_WATCHES: usize = 1_024;
/// Events on their way to one reader. Behind them wait the objects that changed meanwhile, each once.
const MAX_QUEUED: usize = 256;
/// For a reader to take one event.
const READER_TIMEOUT: Duration = Duration::from_secs(10);

pub struct WatchCalls {
    engine: Engine,
    room: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl WatchCalls {
    pub fn new(engine: Engine, stopping: CancellationToken) -> Self {
        Self { engine, room: Arc::new(Semaphore::new(MAX_WATCHES)), stopping }
    }
}

type Outgoing = mpsc::Sender<Result<v1::WatchEvent, Status>>;

#[tonic::async_trait]
impl Watch for WatchCalls {
    type WatchStream = ReceiverStream<Result<v1::WatchEvent, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let filter = Filter::try_from(request.into_inner())?;
        let room = Arc::clone(&self.room).try_acquire_owned();
        let room = room.map_err(|_| Status::resource_exhausted("this manager has too many watches"))?;
        // First the changes, then what is there: so nothing falls between.
        let publications = self.engine.publications();
        let service = filter.service.map(|service| service.to_string());
        let ask = Ask::Snapshot { service, tasks: filter.tasks };
        let start = match self.engine.request(ask).await.map_err(|error| from_api(&error))? {
            Answer::Snapshot { sequence, index, changes } => Start { sequence, index, changes },
            other => unreachable!("Snapshot is answered by a snapshot, not by {other:?}"),
        };
        let (outgoing, events) = mpsc::channel(MAX_QUEUED);
        let watch = Watching { engine: self.engine.clone(), filter, outgoing, publications, _room: room };
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            let outgoing = watch.outgoing.clone();
            let end = tokio::select! {
                end = watch.run(start) => end,
                () = stopping.cancelled() => Status::unavailable("this manager stops; watch again"),
                () = outgoing.closed() => return,
            };
            // The reader is owed the reason, unless it takes nothing.
            let _ = tokio::time::timeout(READER_TIMEOUT, outgoing.send(Err(end))).await;
        });
        Ok(Response::new(ReceiverStream::new(events)))
    }
}

struct Start {
    sequence: u64,
    index: u64,
    changes: Vec<Change>,
}

struct Watching {
    engine: Engine,
    filter: Filter,
    outgoing: Outgoing,
    publications: broadcast::Receiver<Arc<Publication>>,
    _room: OwnedSemaphorePermit,
}

impl Watching {
    /// Runs to the end of the watch, which has a reason.
    async fn run(mut self, start: Start) -> Status {
        let mut sequence = start.sequence;
        if let Err(end) = self.send_all(start.index, &start.changes).await {
            return end;
        }
        let synced = v1::WatchEvent { index: start.index, event: Some(Event::Synced(true)) };
        if let Err(end) = self.send(synced).await {
            return end;
        }
        let mut leadership = self.engine.leadership();
        let mut pending = Pending::default();
        let mut taken_at = Instant::now();
        loop {
            tokio::select! {
                publication = self.publications.recv() => {
                    let publication = match publication {
                        Ok(publication) => publication,
                        Err(broadcast::error::RecvError::Lagged(_)) => return too_slow(),
                        Err(broadcast::error::RecvError::Closed) => {
                            return Status::unavailable("this manager stops");
                        }
                    };
                    if publication.sequence <= sequence {
                        continue;
                    }
                    if publication.sequence != sequence + 1 {
                        return too_slow();
                    }
                    sequence = publication.sequence;
                    if pending.is_empty() {
                        taken_at = Instant::now();
                    }
                    for change in publication.changes.iter().filter(|change| self.filter.wants(change)) {
                        pending.put(publication.index, change);
                    }
                    if pending.is_full() {
                        return too_slow();
                    }
                }
                room = self.outgoing.reserve(), if !pending.is_empty() => {
                    let Ok(room) = room else { return too_slow() };
                    taken_at = Instant::now();
                    let event = pending.take().and_then(|(index, change)| {
                        Some(v1::WatchEvent { index, event: Some(views::change(&change)?) })
                    });
                    if let Some(event) = event {
                        room.send(Ok(event));
                    }
                }
                () = tokio::time::sleep_until(taken_at + READER_TIMEOUT), if !pending.is_empty() => {
                    return too_slow();
                }
                _ = leadership.wait_for(|now| matches!(now, Leadership::Follower { .. })) => {
                    return Status::unavailable("this manager does not lead any more; watch again");
                }
            }
        }
    }

    async fn send_all(&self, index: u64, changes: &[Change]) -> Result<(), Status> {
        for change in changes.iter().filter(|change| self.filter.wants(change)) {
            if let Some(event) = views::change(change) {
                self.send(v1::WatchEvent { index, event: Some(event) }).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, event: v1::WatchEvent) -> Result<(), Status> {
        match self.outgoing.send_timeout(Ok(event), READER_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(_) => Err(too_slow()),
        }
    }
}

fn too_slow() -> Status {
    Status::resource_exhausted("this watch does not keep up with the changes; watch again")
}

/// What a watch wants to see.
struct Filter {
    services: bool,
    tasks: bool,
    nodes: bool,
    service: Option<ServiceId>,
}

impl TryFrom<v1::WatchRequest> for Filter {
    type Error = Status;

    fn try_from(request: v1::WatchRequest) -> Result<Self, Status> {
        let v1::WatchRequest { services, tasks, nodes, service_id } = request;
        let service = match service_id.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?),
        };
        Ok(Self { services, tasks, nodes, service })
    }
}

impl Filter {
    fn wants(&self, change: &Change) -> bool {
        let of = |service: ServiceId| self.service.is_none_or(|wanted| wanted == service);
        match change {
            Change::Service(view) => self.services && of(view.service.id),
            Change::ServiceRemoved(service) => self.services && of(*service),
            Change::Task(view) => self.tasks && of(view.task.service),
            Change::TaskRemoved { service, .. } => self.tasks && of(*service),
            Change::Node(_) | Change::NodeRemoved(_) => self.nodes,
            Change::Image(_) | Change::ImageRemoved(_) => false,
        }
    }
}
