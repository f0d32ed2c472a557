//! `service logs`.

use std::io::Write;

use swarm_proto::v1;
use tokio_stream::StreamExt;

use crate::cli::LogsArgs;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output::{rfc3339, short};
use crate::parse;

pub async fn run(client: &Client, args: LogsArgs) -> Result<()> {
    let mut request = subscription(client, &args.target).await?;
    request.follow = args.follow;
    request.tail = tail(&args.tail)?;
    request.since = args.since.as_deref().map(since).transpose()?.unwrap_or(0);
    let mut stream = client.logs().subscribe(request).await?.into_inner();
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            entry = stream.next() => match entry {
                Some(entry) => print(&entry?, &args)?,
                None => return Ok(()),
            },
            _ = &mut interrupt => return Ok(()),
        }
    }
}

/// A service's name wins over a task's.
async fn subscription(client: &Client, target: &str) -> Result<v1::SubscribeLogsRequest> {
    let service = client.services().get(v1::GetServiceRequest { service: target.to_owned() }).await;
    match service {
        Ok(service) => {
            Ok(v1::SubscribeLogsRequest { service_id: service.into_inner().id, ..Default::default() })
        }
        Err(status) if status.code() == tonic::Code::NotFound => {
            let task = client.tasks().get(v1::GetTaskRequest { task: target.to_owned() }).await;
            match task {
                Ok(task) => {
                    Ok(v1::SubscribeLogsRequest { task_id: task.into_inner().id, ..Default::default() })
                }
                Err(_) => Err(Failure::from(status).next("swarmctl service ls")),
            }
        }
        Err(status) => Err(status.into()),
    }
}

fn tail(text: &str) -> Result<Option<u64>> {
    if text == "all" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| Failure::usage(format!("--tail: {text:?} is neither a number nor \"all\"")))
}

fn since(text: &str) -> Result<u64> {
    let time = match parse::duration(text) {
        Ok(ago) => jiff::Timestamp::now() - jiff::SignedDuration::try_from(ago).unwrap_or_default(),
        Err(_) => text.parse::<jiff::Timestamp>().map_err(|_| {
            Failure::usage(format!("--since: {text:?} is neither a duration (10m) nor an RFC 3339 time"))
        })?,
    };
    Ok(u64::try_from(time.as_microsecond()).unwrap_or(0))
}

fn print(entry: &v1::LogEntry, args: &LogsArgs) -> Result<()> {
    if !entry.notice.is_empty() {
        eprintln!("{}", entry.notice);
        return Ok(());
    }
    let mut line = Vec::with_capacity(entry.line.len() + 64);
    if args.timestamps {
        line.extend_from_slice(format!("{} ", rfc3339(entry.at)).as_bytes());
    }
    if !args.raw {
        let task = short(&entry.task_id, args.no_trunc);
        let origin = format!("{}.{}.{task}@{}", entry.service_name, entry.slot, entry.node_hostname);
        line.extend_from_slice(format!("{origin}    | ").as_bytes());
    }
    line.extend_from_slice(&entry.line);
    if !entry.partial {
        line.push(b'\n');
    }
    if entry.stderr {
        std::io::stderr().write_all(&line)?
    } else {
        std::io::stdout().write_all(&line)?
    }
    Ok(())
}
