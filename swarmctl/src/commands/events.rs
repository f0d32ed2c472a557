//! `events`: who changed what, and what became of tasks.

use std::io::Write;

use swarm_proto::v1;
use swarm_proto::v1::subscribe_events_request::Begin;
use tokio_stream::StreamExt;

use crate::cli::EventsArgs;
use crate::client::{Client, is_transient};
use crate::failure::{Failure, Result};
use crate::output::{Format, Row, filter, print, rfc3339};
use crate::parse;

/// What is shown of the past where nothing is asked for but to follow.
const FOLLOWED_PAST: u32 = 10;

/// Prints until the end, or until Ctrl-C. A manager that dies, or a change of leader, loses and repeats nothing: it goes on
/// behind the last event.
pub async fn run(client: &Client, args: EventsArgs) -> Result<()> {
    let mut request = v1::SubscribeEventsRequest {
        begin: begin(&args)?,
        follow: args.follow,
        kinds: args.kinds.iter().map(|kind| kind.wire() as i32).collect(),
    };
    let mut left = if args.filter.is_empty() && args.since.is_none() {
        usize::MAX
    } else {
        args.limit.unwrap_or(usize::MAX)
    };
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let subscribed = client.persist(|| {
            let (mut events, request) = (client.events(), request.clone());
            async move { events.subscribe(request).await }
        });
        let mut stream = subscribed.await?.into_inner();
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                _ = &mut interrupt => return Ok(()),
            };
            match event {
                Some(Ok(event)) => {
                    request.begin = event.at.map(Begin::After);
                    if show(&event, &args)? {
                        left -= 1;
                    }
                    if left == 0 {
                        return Ok(());
                    }
                }
                Some(Err(status)) if is_transient(&status) => break,
                Some(Err(status)) => return Err(status.into()),
                None if args.follow => break,
                None => return Ok(()),
            }
        }
    }
}

/// A number is an index, as events show it.
fn begin(args: &EventsArgs) -> Result<Option<Begin>> {
    let Some(since) = &args.since else {
        let newest = match args.limit {
            // What is filtered out here must not count.
            Some(limit) if args.filter.is_empty() => Some(u32::try_from(limit).unwrap_or(u32::MAX)),
            Some(_) => None,
            None => args.follow.then_some(FOLLOWED_PAST),
        };
        return Ok(newest.map(Begin::Newest));
    };
    if let Ok(index) = since.parse() {
        return Ok(Some(Begin::After(v1::EventId { index, position: u32::MAX })));
    }
    let time = match parse::duration(since) {
        Ok(ago) => jiff::Timestamp::now() - jiff::SignedDuration::try_from(ago).unwrap_or_default(),
        Err(_) => since.parse::<jiff::Timestamp>().map_err(|_| {
            Failure::usage(format!(
                "--since: {since:?} is neither an index (1234), nor a duration (10m), nor an RFC 3339 time"
            ))
        })?,
    };
    Ok(Some(Begin::Since(u64::try_from(time.as_microsecond()).unwrap_or(0))))
}

/// Whether it was shown.
fn show(event: &v1::Event, args: &EventsArgs) -> Result<bool> {
    let keys = [
        ("actor", "Actor"),
        ("operator", "Actor"),
        ("verb", "Verb"),
        ("name", "Name"),
        ("id", "ID"),
        ("node", "Node"),
        ("service", "Service"),
        ("state", "State"),
    ];
    let rows = filter(vec![row(event)], &args.filter, &keys)?;
    if rows.is_empty() {
        return Ok(false);
    }
    if args.format.format == Format::Table {
        let index = event.at.map_or(0, |at| at.index);
        let line = format!(
            "{}  {index:>7}  {:<24} {:<8} {:<8} {:<20} {}",
            rfc3339(event.time),
            who(event),
            kind(event.kind()),
            event.verb,
            event.name,
            event.difference
        );
        writeln!(std::io::stdout(), "{}", line.trim_end())?;
    } else {
        print(&rows, &args.format.format, &[])?;
    }
    Ok(true)
}

fn row(event: &v1::Event) -> Row {
    let at = event.at.unwrap_or_default();
    let service = if event.kind() == v1::ObjectKind::Task {
        event.name.rsplit_once('.').map_or("", |(service, _)| service).to_owned()
    } else if event.kind() == v1::ObjectKind::Service {
        event.name.clone()
    } else {
        String::new()
    };
    let node = if event.kind() == v1::ObjectKind::Node { &event.name } else { &event.node_hostname };
    let state = match event.state() {
        v1::TaskState::New => String::new(),
        state => crate::progress::task_state(state),
    };
    Row::default()
        .field("Time", rfc3339(event.time))
        .field("Index", at.index)
        .field("Position", at.position)
        .field("Actor", if event.actor.is_empty() { "system".to_owned() } else { event.actor.clone() })
        .field("Role", role(event))
        .field("Type", kind(event.kind()))
        .field("Verb", event.verb.clone())
        .field("ID", event.id.clone())
        .field("Name", event.name.clone())
        .field("Difference", event.difference.clone())
        .field("Service", service)
        .field("ServiceID", event.service_id.clone())
        .field("Node", node.clone())
        .field("NodeID", event.node_id.clone())
        .field("State", state)
        .field("ExitCode", event.exit_code)
}

fn who(event: &v1::Event) -> String {
    if event.actor.is_empty() { "system".to_owned() } else { format!("{} ({})", event.actor, role(event)) }
}

fn role(event: &v1::Event) -> &'static str {
    match event.actor_role() {
        v1::OperatorRole::Unspecified => "",
        v1::OperatorRole::ReadOnly => "read-only",
        v1::OperatorRole::Deployer => "deployer",
        v1::OperatorRole::Admin => "admin",
    }
}

fn kind(kind: v1::ObjectKind) -> &'static str {
    match kind {
        v1::ObjectKind::Unspecified => "unknown",
        v1::ObjectKind::Cluster => "cluster",
        v1::ObjectKind::Operator => "operator",
        v1::ObjectKind::Node => "node",
        v1::ObjectKind::Service => "service",
        v1::ObjectKind::Image => "image",
        v1::ObjectKind::Task => "task",
    }
}
