//! `task ls|inspect`, and the task table that `service ps` and `node ps` print.

use serde_json::{Value, json};
use swarm_proto::v1;

use super::print_objects;
use crate::cli::{ListArgs, TaskCommand};
use crate::client::Client;
use crate::failure::Result;
use crate::output::{Row, ago, filter, print, rfc3339, short};
use crate::progress::task_state;

pub async fn run(client: &Client, command: TaskCommand) -> Result<()> {
    match command {
        TaskCommand::Ls(args) => {
            let tasks = client.tasks().list(v1::ListTasksRequest::default()).await?.into_inner().tasks;
            print_tasks(tasks, &args)
        }
        TaskCommand::Inspect { tasks, format } => {
            let mut objects = Vec::new();
            for task in tasks {
                objects.push(object(&client.tasks().get(v1::GetTaskRequest { task }).await?.into_inner()));
            }
            print_objects(objects, format.as_ref())
        }
    }
}

/// Prints tasks as `service ps` does: newest of each slot first, its history below it.
pub fn print_tasks(mut tasks: Vec<v1::Task>, args: &ListArgs) -> Result<()> {
    let created = |task: &v1::Task| task.meta.map_or(0, |meta| meta.created_at);
    tasks.sort_by(|a, b| {
        (&a.service_name, a.slot, created(b), &b.id).cmp(&(&b.service_name, b.slot, created(a), &a.id))
    });
    let mut previous = None;
    let rows = tasks.iter().map(|task| {
        let slot = Some((task.service_id.clone(), task.slot));
        let history = previous == slot;
        previous = slot;
        row(task, history, args.no_trunc)
    });
    let rows = rows.collect();
    let keys = [
        ("id", "FullID"),
        ("name", "FullName"),
        ("node", "Node"),
        ("service", "Service"),
        ("desired-state", "DesiredState"),
        ("state", "State"),
    ];
    let rows = filter(rows, &args.filter, &keys)?;
    if args.quiet {
        rows.iter().filter_map(|row| row.text("FullID")).for_each(|id| println!("{id}"));
        return Ok(());
    }
    print(
        &rows,
        &args.format.format,
        &["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"],
    )
}

fn row(task: &v1::Task, history: bool, full: bool) -> Row {
    let status = task.status.clone().unwrap_or_default();
    let name = format!("{}.{}", task.service_name, task.slot);
    let state = capital(&task_state(status.state()));
    // A waiting task has its reason in the message, an ended one in the error.
    let reason = if status.error.is_empty() && status.state() < v1::TaskState::Running {
        status.message
    } else {
        status.error
    };
    Row::default()
        .column("ID", "ID", short(&task.id, full))
        .column("NAME", "Name", if history { format!(" \\_ {name}") } else { name.clone() })
        .column("IMAGE", "Image", short_image(&task.image))
        .column("NODE", "Node", task.node_hostname.clone())
        .column("DESIRED STATE", "DesiredState", capital(desired(task)))
        .column("CURRENT STATE", "CurrentState", format!("{state} {}", ago(status.at)).trim_end().to_owned())
        .column("ERROR", "Error", reason)
        .column("PORTS", "Ports", host_ports(task))
        .field("FullID", task.id.clone())
        .field("FullName", name)
        .field("Slot", task.slot)
        .field("Service", task.service_name.clone())
        .field("State", state)
        .field("Address", task.address.clone())
        .field("ExitCode", status.exit_code)
        .field("CreatedAt", rfc3339(task.meta.map_or(0, |meta| meta.created_at)))
}

fn desired(task: &v1::Task) -> &'static str {
    let ended = task.status.as_ref().is_some_and(|status| status.state() >= v1::TaskState::Complete);
    match task.desired() {
        // As Docker shows it: nothing is wanted of a task that has ended.
        v1::DesiredState::Ready | v1::DesiredState::Running if ended => "shutdown",
        v1::DesiredState::Unspecified => "unknown",
        v1::DesiredState::Ready => "ready",
        v1::DesiredState::Running => "running",
        v1::DesiredState::Shutdown => "shutdown",
        v1::DesiredState::Remove => "remove",
    }
}

fn host_ports(task: &v1::Task) -> String {
    let host = task.ports.iter().filter(|port| port.mode() == v1::port_spec::Mode::Host);
    host.map(super::service::port).collect::<Vec<_>>().join(", ")
}

/// Docker shows `nginx:latest`, not `docker.io/library/nginx:latest`.
pub fn short_image(image: &str) -> String {
    let image = image.split('@').next().unwrap_or(image);
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    image.strip_prefix("library/").unwrap_or(image).to_owned()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn object(task: &v1::Task) -> Value {
    let status = task.status.clone().unwrap_or_default();
    let meta = task.meta.unwrap_or_default();
    json!({
        "ID": task.id,
        "Version": { "Index": meta.version },
        "CreatedAt": rfc3339(meta.created_at),
        "UpdatedAt": rfc3339(meta.updated_at),
        "Name": format!("{}.{}.{}", task.service_name, task.slot, task.id),
        "ServiceID": task.service_id,
        "ServiceName": task.service_name,
        "Slot": task.slot,
        "Revision": task.revision,
        "NodeID": task.node_id,
        "NodeHostname": task.node_hostname,
        "Address": task.address,
        "Restarts": task.restarts,
        "NotBefore": rfc3339(task.not_before),
        "DesiredState": desired(task),
        "Spec": task.spec.as_ref().map(super::service::task_object),
        "Status": {
            "State": task_state(status.state()),
            "Timestamp": rfc3339(status.at),
            "Message": status.message,
            "Err": status.error,
            "ContainerStatus": { "PID": status.pid, "ExitCode": status.exit_code, "OOMKilled": status.oom_killed },
        },
    })
}
