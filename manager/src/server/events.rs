//! The audit trail as a stream: pages of it, and then what comes. Every manager serves it from its own store.

use std::time::Duration;

use swarm_manager_core::api::{After, EventQuery, EventView, Request as Ask, Response as Answer};
use swarm_model::{Event, EventId, Happening, ObjectKind, OperatorRole, TaskRecord, TaskStep, Timestamp};
use swarm_proto::v1;
use swarm_proto::v1::events_server::Events;
use swarm_proto::v1::subscribe_events_request::Begin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::status::from_api;
use crate::engine::Engine;

/// Events that are read at a time: 0.5 MiB at the most.
const PAGE: usize = 1_000;
/// On their way to a reader.
const MAX_WAITING: usize = 256;
/// A reader that takes nothing for so long is cut; it can go on where it was.
const SLOW: Duration = Duration::from_secs(30);

pub struct EventCalls {
    pub engine: Engine,
    pub stopping: CancellationToken,
}

#[tonic::async_trait]
impl Events for EventCalls {
    type SubscribeStream = ReceiverStream<Result<v1::Event, Status>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeEventsRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        let reader = Reader {
            engine: self.engine.clone(),
            kinds: request.kinds().map(model_kind).collect::<Result<_, _>>()?,
            follow: request.follow,
        };
        let (query, whole) = reader.first(request.begin);
        // Where nothing is found, the stream goes on behind what had happened before it was looked for.
        let mut last = reader.engine.happened().borrow().unwrap_or(EventId::START);
        if let After::Event(after) = query.after {
            last = after;
        }
        // A refusal is the call's own.
        let page = reader.page(query).await?;
        if let Some(newest) = page.last() {
            last = newest.event.at;
        }
        let (sender, stream) = mpsc::channel(MAX_WAITING);
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = reader.run(page, whole, last, &sender) => {}
                () = stopping.cancelled() => {
                    let _ = sender.try_send(Err(Status::unavailable("this manager stops")));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Reader {
    engine: Engine,
    kinds: Vec<ObjectKind>,
    follow: bool,
}

impl Reader {
    /// The first page, and whether it is all that is asked for of the past.
    fn first(&self, begin: Option<Begin>) -> (EventQuery, bool) {
        let query = |after, limit| EventQuery { after, kinds: self.kinds.clone(), limit };
        match begin {
            None => (query(After::Everything, PAGE), false),
            Some(Begin::After(v1::EventId { index, position })) => {
                (query(After::Event(EventId { index, position }), PAGE), false)
            }
            Some(Begin::Since(time)) => (query(After::Time(Timestamp::from_micros(time)), PAGE), false),
            Some(Begin::Newest(count)) => {
                let count = usize::try_from(count).unwrap_or(usize::MAX).min(EventQuery::MAX);
                (query(After::Newest, count), true)
            }
        }
    }

    async fn page(&self, query: EventQuery) -> Result<Vec<EventView>, Status> {
        match self.engine.request(Ask::ListEvents(query)).await.map_err(|error| from_api(&error))? {
            Answer::Events(events) => Ok(events),
            other => unreachable!("ListEvents is answered by events, not by {other:?}"),
        }
    }

    async fn run(
        &self,
        mut page: Vec<EventView>,
        mut whole: bool,
        mut last: EventId,
        sender: &mpsc::Sender<Result<v1::Event, Status>>,
    ) {
        let mut happened = self.engine.happened();
        loop {
            let full = page.len() >= PAGE && !whole;
            whole = false;
            for view in &page {
                last = last.max(view.event.at);
                if sender.send_timeout(Ok(wire(view)), SLOW).await.is_err() {
                    return;
                }
            }
            if !full {
                if !self.follow {
                    return;
                }
                let news = happened.wait_for(|newest| newest.is_some_and(|newest| newest > last));
                tokio::select! {
                    news = news => if news.is_err() { return },
                    () = sender.closed() => return,
                }
            }
            let query = EventQuery { after: After::Event(last), kinds: self.kinds.clone(), limit: PAGE };
            let newest = (*happened.borrow()).unwrap_or(last);
            page = match self.page(query).await {
                Ok(page) => page,
                Err(status) => {
                    let _ = sender.send_timeout(Err(status), SLOW).await;
                    return;
                }
            };
            if page.is_empty() {
                // What happened is of another kind: it need not be looked at again.
                last = last.max(newest);
            }
        }
    }
}

fn wire(view: &EventView) -> v1::Event {
    let Event { at, time, what } = &view.event;
    let event = v1::Event {
        at: Some(v1::EventId { index: at.index, position: at.position }),
        time: time.as_micros(),
        kind: wire_kind(view.event.kind()) as i32,
        node_hostname: view.node_hostname.clone(),
        ..v1::Event::default()
    };
    match what {
        Happening::Change(change) => {
            let role = change.by.as_ref().map_or(v1::OperatorRole::Unspecified, |by| match by.role {
                OperatorRole::ReadOnly => v1::OperatorRole::ReadOnly,
                OperatorRole::Deployer => v1::OperatorRole::Deployer,
                OperatorRole::Admin => v1::OperatorRole::Admin,
            });
            v1::Event {
                verb: change.verb.clone(),
                id: change.id.clone(),
                name: change.name.clone(),
                difference: change.difference.clone(),
                actor: change.by.as_ref().map_or_else(String::new, |by| by.name.clone()),
                actor_role: role as i32,
                ..event
            }
        }
        Happening::Task(task) => of_task(event, task, &view.node_hostname),
    }
}

fn of_task(event: v1::Event, task: &TaskRecord, hostname: &str) -> v1::Event {
    let node = task.node.map_or_else(String::new, |node| node.to_string());
    let on = match (hostname, node.as_str()) {
        ("", "") => String::new(),
        ("", node) => format!("on {node}"),
        (hostname, _) => format!("on {hostname}"),
    };
    let event = v1::Event {
        id: task.task.to_string(),
        name: format!("{}.{}", task.service_name, task.slot),
        service_id: task.service.to_string(),
        node_id: node,
        ..event
    };
    match &task.step {
        TaskStep::Created => v1::Event { verb: "create".to_owned(), difference: on, ..event },
        TaskStep::Placed => v1::Event { verb: "place".to_owned(), difference: on, ..event },
        TaskStep::Finished { state, exit_code, ran_seconds, reason } => {
            let mut parts = vec![state.to_string().to_lowercase()];
            parts.extend(ran_seconds.map(|seconds| format!("after {seconds} s")));
            parts.extend(Some(on).filter(|on| !on.is_empty()));
            let mut difference = parts.join(" ");
            if !reason.is_empty() {
                difference = format!("{difference}: {reason}");
            } else if let Some(code) = exit_code {
                difference = format!("{difference}: exit code {code}");
            }
            let state = i32::from(*state as i16);
            v1::Event { verb: "finish".to_owned(), difference, state, exit_code: *exit_code, ..event }
        }
    }
}

fn wire_kind(kind: ObjectKind) -> v1::ObjectKind {
    match kind {
        ObjectKind::Cluster => v1::ObjectKind::Cluster,
        ObjectKind::Operator => v1::ObjectKind::Operator,
        ObjectKind::Node => v1::ObjectKind::Node,
        ObjectKind::Service => v1::ObjectKind::Service,
        ObjectKind::Image => v1::ObjectKind::Image,
        ObjectKind::Task => v1::ObjectKind::Task,
    }
}

fn model_kind(kind: v1::ObjectKind) -> Result<ObjectKind, Status> {
    let known = ObjectKind::ALL.into_iter().find(|known| wire_kind(*known) == kind);
    known.ok_or_else(|| Status::invalid_argument("an unknown kind of events was asked for"))
}
