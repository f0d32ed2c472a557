//! Live progress of a service towards a goal, from the managers' watch. Decides when a command is done, and when it
//! cannot be: what is drawn and what is decided are both functions of [`Picture`].

mod draw;
mod picture;

use std::time::{Duration, Instant};

use swarm_proto::v1;
use tokio_stream::StreamExt;

use crate::cli::WaitArgs;
use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use draw::Drawing;
use picture::Verdict;
pub use picture::{Goal, Picture, name as task_state, reason as task_reason};

/// How often elapsed time and reasons are redrawn, and how often a standstill is looked at.
const REDRAW: Duration = Duration::from_millis(250);

/// Follows the service until the goal is reached.
///
/// # Errors
/// The goal cannot be reached (with the tasks' own reason), was rolled back, or the time is over. Ctrl-C ends the
/// waiting, not the operation.
pub async fn wait(client: &Client, service: &v1::Service, goal: Goal, args: &WaitArgs) -> Result<()> {
    let name = service.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
    let started = Instant::now();
    let mut picture = Picture::new(service.clone());
    let mut drawing = Drawing::new(args.quiet);
    let Some(mut events) = watch(client, &service.id, goal).await? else {
        drawing.summary(&picture, goal, started.elapsed());
        return Ok(());
    };
    let mut ticks = tokio::time::interval(REDRAW);
    let timeout = tokio::time::sleep(args.timeout);
    tokio::pin!(timeout);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => picture.apply(event, Instant::now()),
                // The leader changed or we were too slow: look again.
                Some(Err(_)) | None => {
                    tokio::time::sleep(REDRAW).await;
                    picture = Picture::new(picture.service.clone());
                    let Some(again) = watch(client, &service.id, goal).await? else {
                        drawing.finish();
                        drawing.summary(&picture, goal, started.elapsed());
                        return Ok(());
                    };
                    events = again;
                }
            },
            _ = ticks.tick() => {}
            () = &mut timeout => {
                drawing.finish();
                return Err(timed_out(&name, &picture, goal));
            }
            _ = &mut interrupt => {
                drawing.finish();
                return Err(Failure::failed("stopped watching; the operation goes on").next(format!("swarmctl service ps {name}")));
            }
        }
        if !picture.synced {
            continue;
        }
        drawing.update(&picture, goal, started.elapsed());
        match picture.verdict(goal, Instant::now()) {
            Verdict::Going => {}
            Verdict::Reached => {
                drawing.finish();
                drawing.summary(&picture, goal, started.elapsed());
                return Ok(());
            }
            Verdict::RolledBack(message) => {
                drawing.finish();
                return Err(Failure::new(
                    Code::RolledBack,
                    format!("the update of {name} failed and was rolled back"),
                )
                .why(message));
            }
            Verdict::Failed(reason) => {
                drawing.finish();
                return Err(Failure::failed(format!("{name} does not get there"))
                    .why(reason)
                    .next(hint(&name, goal)));
            }
        }
    }
}

/// `None`: it is to be removed, and was gone with all its tasks before we looked.
async fn watch(
    client: &Client,
    service_id: &str,
    goal: Goal,
) -> Result<Option<tonic::Streaming<v1::WatchEvent>>> {
    let request =
        v1::WatchRequest { services: true, tasks: true, nodes: false, service_id: service_id.to_owned() };
    let watched = client.persist(|| {
        let (mut watch, request) = (client.watch(), request.clone());
        async move { watch.watch(request).await }
    });
    match watched.await {
        Ok(events) => Ok(Some(events.into_inner())),
        Err(status) if goal == Goal::Removed && status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

fn timed_out(name: &str, picture: &Picture, goal: Goal) -> Failure {
    let failure = Failure::new(Code::Timeout, format!("{name} is not there yet; the operation goes on"));
    match picture.standstill() {
        Some(reason) => failure.why(reason).next(hint(name, goal)),
        None => failure.next(hint(name, goal)),
    }
}

fn hint(name: &str, goal: Goal) -> String {
    match goal {
        Goal::Running | Goal::Updated => {
            format!(
                "swarmctl service ps {name}   or: swarmctl service logs {name}   or: swarmctl service rm {name}"
            )
        }
        Goal::Removed => "swarmctl task ls".to_owned(),
    }
}
