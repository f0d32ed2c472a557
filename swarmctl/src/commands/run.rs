//! `run`: a service of one task that is never restarted; its output is shown, its exit code passed on, and it is
//! removed at the end.

use std::process::ExitCode;
use std::time::Duration;

use std::io::Write;
use swarm_proto::v1;
use tokio_stream::StreamExt;

use crate::cli::RunArgs;
use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use crate::progress::task_reason;

/// How long the log stream may take to end after the container has.
const DRAIN: Duration = Duration::from_secs(5);
/// Exit code after Ctrl-C, as of a shell.
const INTERRUPTED: u8 = 130;
/// Exit code where the container never ran, as of docker run.
const NEVER_RAN: u8 = 125;

pub async fn run(client: &Client, args: RunArgs) -> Result<ExitCode> {
    let mut spec = args.flags.spec();
    if spec.name.is_empty() {
        spec.name = super::service::generated_name(&args.flags.image);
    }
    if args.flags.task.replicas.is_some_and(|replicas| replicas != 1) {
        return Err(Failure::usage("run starts one container").next("swarmctl service create --replicas …"));
    }
    if args.flags.task.restart_condition.is_none() {
        let restart = spec.task.get_or_insert_default().restart.get_or_insert_default();
        restart.condition = v1::restart_policy::Condition::None as i32;
    }
    let name = spec.name.clone();
    let service = super::service::create(client, spec).await?;
    let outcome = attached(client, &service.id, args.timeout).await;
    let removed = client.services().remove(v1::RemoveServiceRequest { service_id: service.id }).await;
    if let Err(status) = removed {
        eprintln!("warning: service {name} was not removed: {}", status.message());
    }
    outcome
}

async fn attached(client: &Client, service_id: &str, timeout: Duration) -> Result<ExitCode> {
    let watch = v1::WatchRequest { tasks: true, service_id: service_id.to_owned(), ..Default::default() };
    let mut events = client.watch().watch(watch).await?.into_inner();
    let subscribe =
        v1::SubscribeLogsRequest { service_id: service_id.to_owned(), follow: true, ..Default::default() };
    let mut logs = client.logs().subscribe(subscribe).await?.into_inner();
    let started = tokio::time::sleep(timeout);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(started, interrupt);
    let (mut running, mut logs_open) = (false, true);
    let mut reason = String::new();
    loop {
        tokio::select! {
            event = events.next() => {
                let event = event.ok_or_else(|| Failure::new(Code::Unreachable, "the manager closed the connection"))??;
                let Some(v1::watch_event::Event::Task(task)) = event.event else { continue };
                task_reason(&task).clone_into(&mut reason);
                let status = task.status.unwrap_or_default();
                running |= status.state() >= v1::TaskState::Running;
                if status.state() >= v1::TaskState::Complete {
                    if logs_open && status.state() != v1::TaskState::Rejected {
                        let _ = tokio::time::timeout(DRAIN, drain(&mut logs)).await;
                    }
                    return ended(&status);
                }
            }
            entry = logs.next(), if logs_open => match entry {
                Some(entry) => print(&entry?)?,
                None => logs_open = false,
            },
            () = &mut started, if !running => {
                return Err(Failure::new(Code::Timeout, "the container did not start in time").why(reason));
            }
            _ = &mut interrupt => return Ok(INTERRUPTED.into()),
        }
    }
}

async fn drain(logs: &mut tonic::Streaming<v1::LogEntry>) -> Result<()> {
    while let Some(entry) = logs.next().await {
        print(&entry?)?;
    }
    Ok(())
}

fn print(entry: &v1::LogEntry) -> Result<()> {
    if !entry.notice.is_empty() {
        eprintln!("{}", entry.notice);
        return Ok(());
    }
    let mut line = entry.line.to_vec();
    if !entry.partial {
        line.push(b'\n');
    }
    if entry.stderr {
        std::io::stderr().write_all(&line)?;
    } else {
        std::io::stdout().write_all(&line)?;
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn ended(status: &v1::TaskStatus) -> Result<ExitCode> {
    if status.oom_killed {
        eprintln!("{}", status.error);
    }
    match status.exit_code {
        Some(code) => Ok(u8::try_from(code & 0xff).unwrap_or(1).into()),
        None if status.state() == v1::TaskState::Complete => Ok(ExitCode::SUCCESS),
        None => {
            eprintln!("error: the container did not run\n  why: {}", status.error);
            Ok(NEVER_RAN.into())
        }
    }
}
