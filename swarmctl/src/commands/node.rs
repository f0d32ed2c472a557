//! `node ls|inspect|ps|update|promote|demote|rm`.

use std::time::Duration;

use serde_json::{Value, json};
use swarm_proto::v1;

use super::cluster::{role_name, wire_availability, wire_role};
use super::print_objects;
use super::task;
use crate::cli::{ListArgs, NodeCommand, Role};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output::{Row, ago, cpu, filter, joined, memory, print, rfc3339, short};

/// For a node to change its certificate, and to get the log or be taken out.
const ROLE_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub async fn run(client: &Client, command: NodeCommand) -> Result<()> {
    match command {
        NodeCommand::Ls(args) => list(client, &args).await,
        NodeCommand::Inspect { nodes, pretty, format } => {
            let mut found = Vec::new();
            for name in &nodes {
                found.push(get(client, name).await?);
            }
            if pretty {
                found.iter().for_each(show);
                return Ok(());
            }
            print_objects(found.iter().map(object).collect(), format.as_ref())
        }
        NodeCommand::Ps { nodes, list } => {
            let mut tasks = Vec::new();
            for name in &nodes {
                let node_id = get(client, name).await?.id;
                let request = v1::ListTasksRequest { node_id, ..Default::default() };
                tasks.extend(client.tasks().list(request).await?.into_inner().tasks);
            }
            task::print_tasks(tasks, &list)
        }
        NodeCommand::Promote { nodes } => set_role(client, nodes, Role::Manager).await,
        NodeCommand::Demote { nodes } => set_role(client, nodes, Role::Worker).await,
        NodeCommand::Update { node, availability, role, label_add, label_rm } => {
            let found = get(client, &node).await?;
            let mut spec = found.spec.unwrap_or_default();
            if let Some(availability) = availability {
                spec.availability = wire_availability(availability);
            }
            if let Some(role) = role {
                spec.role = wire_role(role);
            }
            for key in &label_rm {
                if spec.labels.remove(key).is_none() {
                    return Err(Failure::failed(format!("node {node} has no label {key:?}")));
                }
            }
            spec.labels.extend(label_add);
            let version = found.meta.map_or(0, |meta| meta.version);
            client
                .nodes()
                .update(v1::UpdateNodeRequest { node_id: found.id, version, spec: Some(spec) })
                .await?;
            println!("{node}");
            Ok(())
        }
        NodeCommand::Rm { nodes, force } => {
            for name in nodes {
                let node_id = get(client, &name).await?.id;
                client.nodes().remove(v1::RemoveNodeRequest { node_id, force }).await?;
                println!("{name}");
            }
            Ok(())
        }
    }
}

/// Returns once the nodes are what they are to be.
async fn set_role(client: &Client, nodes: Vec<String>, role: Role) -> Result<()> {
    for name in nodes {
        let found = get(client, &name).await?;
        let mut spec = found.spec.unwrap_or_default();
        if spec.role == wire_role(role) && is_now(found.manager_status, role) {
            println!("Node {name} is a {} already.", role_name(role));
            continue;
        }
        spec.role = wire_role(role);
        let version = found.meta.map_or(0, |meta| meta.version);
        let update = v1::UpdateNodeRequest { node_id: found.id.clone(), version, spec: Some(spec) };
        client.nodes().update(update).await?;
        wait_role(client, &found.id, &name, role).await?;
        println!("Node {name} is a {} now.", role_name(role));
    }
    Ok(())
}

async fn wait_role(client: &Client, id: &str, name: &str, role: Role) -> Result<()> {
    let end = tokio::time::Instant::now() + ROLE_TIMEOUT;
    loop {
        // While leadership moves, there may be no answer.
        if let Ok(node) = client.nodes().get(v1::GetNodeRequest { node: id.to_owned() }).await
            && is_now(node.get_ref().manager_status, role)
        {
            return Ok(());
        }
        if tokio::time::Instant::now() >= end {
            return Err(Failure::failed(format!(
                "node {name} is to be a {}, but has not got there yet: it may be down",
                role_name(role)
            ))
            .next("swarmctl node ls"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn is_now(status: i32, role: Role) -> bool {
    let status = v1::ManagerStatus::try_from(status).unwrap_or_default();
    match role {
        Role::Worker => status == v1::ManagerStatus::Unspecified,
        Role::Manager => matches!(status, v1::ManagerStatus::Leader | v1::ManagerStatus::Reachable),
    }
}

async fn get(client: &Client, name: &str) -> Result<v1::Node> {
    let node = if name == "self" {
        client.local("node … self")?.status(v1::LocalStatusRequest {}).await?.into_inner().node_id
    } else {
        name.to_owned()
    };
    if node.is_empty() {
        return Err(Failure::failed("this node is in no cluster").next("swarmctl cluster init"));
    }
    Ok(client.nodes().get(v1::GetNodeRequest { node }).await?.into_inner())
}

async fn list(client: &Client, args: &ListArgs) -> Result<()> {
    let own = if client.is_remote() {
        String::new()
    } else {
        client.local("node ls")?.status(v1::LocalStatusRequest {}).await?.into_inner().node_id
    };
    let nodes = client.nodes().list(v1::ListNodesRequest {}).await?.into_inner().nodes;
    let rows = nodes.iter().map(|node| row(node, &own, args.no_trunc)).collect();
    let keys = [
        ("id", "FullID"),
        ("name", "Hostname"),
        ("role", "Role"),
        ("label", "Labels"),
        ("availability", "Availability"),
    ];
    let rows = filter(rows, &args.filter, &keys)?;
    if args.quiet {
        rows.iter().filter_map(|row| row.text("FullID")).for_each(|id| println!("{id}"));
        return Ok(());
    }
    print(
        &rows,
        &args.format.format,
        &["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "TASKS", "ADDRESS", "VERSION"],
    )
}

fn row(node: &v1::Node, own: &str, full: bool) -> Row {
    let engine = node.engine.clone().unwrap_or_default();
    let spec = node.spec.clone().unwrap_or_default();
    let id = short(&node.id, full);
    let id = if node.id == own { format!("{id} *") } else { id };
    Row::default()
        .column("ID", "ID", id)
        .column("HOSTNAME", "Hostname", engine.hostname)
        .column("STATUS", "Status", status(node))
        .column("AVAILABILITY", "Availability", availability(spec.availability()))
        .column("MANAGER STATUS", "ManagerStatus", manager_status(node))
        .column("TASKS", "Tasks", node.tasks)
        .column("ADDRESS", "Address", engine.data_address)
        .column("VERSION", "EngineVersion", engine.version)
        .field("FullID", node.id.clone())
        .field("Self", node.id == own)
        .field("Role", role(spec.role()))
        .field("Labels", joined(&spec.labels))
}

fn status(node: &v1::Node) -> &'static str {
    match node.state() {
        v1::NodeState::Unknown => "Unknown",
        v1::NodeState::Ready => "Ready",
        v1::NodeState::Down => "Down",
    }
}

fn availability(availability: v1::NodeAvailability) -> &'static str {
    match availability {
        v1::NodeAvailability::Unspecified | v1::NodeAvailability::Active => "Active",
        v1::NodeAvailability::Pause => "Pause",
        v1::NodeAvailability::Drain => "Drain",
    }
}

fn role(role: v1::NodeRole) -> &'static str {
    match role {
        v1::NodeRole::Unspecified | v1::NodeRole::Worker => "worker",
        v1::NodeRole::Manager => "manager",
    }
}

fn manager_status(node: &v1::Node) -> &'static str {
    match node.manager_status() {
        v1::ManagerStatus::Unspecified => "",
        v1::ManagerStatus::Joining => "Joining",
        v1::ManagerStatus::Reachable => "Reachable",
        v1::ManagerStatus::Unreachable => "Unreachable",
        v1::ManagerStatus::Leader => "Leader",
        v1::ManagerStatus::Leaving => "Leaving",
    }
}

fn object(node: &v1::Node) -> Value {
    let engine = node.engine.clone().unwrap_or_default();
    let spec = node.spec.clone().unwrap_or_default();
    let meta = node.meta.unwrap_or_default();
    let platform = engine.platform.unwrap_or_default();
    let resources = engine.resources.unwrap_or_default();
    let reserved = node.reserved.unwrap_or_default();
    json!({
        "ID": node.id,
        "Version": { "Index": meta.version },
        "CreatedAt": rfc3339(meta.created_at),
        "UpdatedAt": rfc3339(meta.updated_at),
        "Spec": {
            "Role": role(spec.role()),
            "Availability": availability(spec.availability()).to_lowercase(),
            "Labels": spec.labels,
        },
        "Description": {
            "Hostname": engine.hostname,
            "Platform": { "Architecture": platform.arch, "OS": platform.os },
            "Resources": { "NanoCPUs": resources.cpu_nanos, "MemoryBytes": resources.memory_bytes },
            "Reserved": { "NanoCPUs": reserved.cpu_nanos, "MemoryBytes": reserved.memory_bytes },
            "Engine": { "EngineVersion": engine.version, "Labels": engine.labels },
        },
        "Status": {
            "State": status(node).to_lowercase(),
            "Message": node.state_message,
            "Addr": engine.data_address,
            "Tasks": node.tasks,
        },
        "ManagerStatus": if node.manager_address.is_empty() { Value::Null } else {
            json!({ "Leader": node.leader, "Addr": node.manager_address })
        },
    })
}

fn show(node: &v1::Node) {
    let engine = node.engine.clone().unwrap_or_default();
    let spec = node.spec.clone().unwrap_or_default();
    let (total, reserved) = (engine.resources.unwrap_or_default(), node.reserved.unwrap_or_default());
    let platform = engine.platform.unwrap_or_default();
    println!("ID:              {}", node.id);
    println!("Hostname:        {}", engine.hostname);
    println!("Role:            {}", role(spec.role()));
    println!("Joined:          {}", ago(node.meta.map_or(0, |meta| meta.created_at)));
    println!("Status:          {} {}", status(node), node.state_message);
    println!("Availability:    {}", availability(spec.availability()));
    println!("Address:         {}", engine.data_address);
    println!("Labels:          {}", joined(&spec.labels));
    println!("Engine labels:   {}", joined(&engine.labels));
    println!("Platform:        {}/{}", platform.os, platform.arch);
    println!("CPUs:            {} ({} reserved)", cpu(total.cpu_nanos), cpu(reserved.cpu_nanos));
    println!("Memory:          {} ({} reserved)", memory(total.memory_bytes), memory(reserved.memory_bytes));
    println!("Tasks:           {}", node.tasks);
    println!("swarmd:          {}\n", engine.version);
}
