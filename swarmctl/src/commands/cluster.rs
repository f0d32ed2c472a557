//! `cluster init|update|join|join-token|leave|info`.

use std::time::Duration;

use swarm_proto::v1;

use super::{lock, recovery};
use crate::cli::{Availability, ClusterCommand, InitArgs, Role};
use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use crate::output::{Format, Row, print, rfc3339};

pub async fn run(client: &Client, command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Init(init) => initialise(client, init).await?,
        ClusterCommand::Update { cert_expiry, autolock } => update(client, cert_expiry, autolock).await?,
        ClusterCommand::Ca { rotate, detach, quiet } => super::ca::run(client, rotate, detach, quiet).await?,
        ClusterCommand::UnlockKey { quiet, rotate } => lock::key(client, quiet, rotate).await?,
        ClusterCommand::Unlock => lock::unlock(client).await?,
        ClusterCommand::Backup { file, verify: true } => recovery::verify(&file)?,
        ClusterCommand::Backup { file, verify: false } => recovery::backup(client, &file).await?,
        ClusterCommand::Restore { file, yes, advertise_addr, data_path_addr } => {
            let begin = v1::RestoreBegin {
                advertise_address: advertise_addr.unwrap_or_default(),
                data_address: data_path_addr.unwrap_or_default(),
                unlock_key: String::new(),
            };
            recovery::restore(client, &file, yes, begin).await?;
        }
        ClusterCommand::Recover { yes } => recovery::recover(client, yes).await?,
        ClusterCommand::Join { token, managers, advertise_addr, data_path_addr } => {
            let request = v1::JoinRequest {
                token,
                managers,
                advertise_address: advertise_addr.unwrap_or_default(),
                data_address: data_path_addr.unwrap_or_default(),
            };
            let status = client.local("cluster join")?.join(request).await?.into_inner();
            let role = if status.role() == v1::NodeRole::Manager { "manager" } else { "worker" };
            println!("This node ({}) joined the cluster as a {role}.", status.node_id);
        }
        ClusterCommand::JoinToken { role, quiet, rotate } => join_token(client, role, quiet, rotate).await?,
        ClusterCommand::Leave { force } => {
            client.local("cluster leave")?.leave(v1::LeaveRequest { force }).await?;
            println!("This node left the cluster.");
        }
        ClusterCommand::OperatorToken { role, name, ttl, quiet } => {
            super::operator::token(client, role, name, ttl, quiet).await?;
        }
        ClusterCommand::Operator(command) => super::operator::run(client, command).await?,
        ClusterCommand::Info(args) => info(client, &args.format).await?,
        ClusterCommand::Renew => {
            let valid_until =
                client.local("cluster renew")?.renew(v1::RenewRequest {}).await?.into_inner().valid_until;
            println!("This node has a new certificate, valid until {}.", rfc3339(valid_until));
        }
        ClusterCommand::Doctor(args) => super::doctor::run(client, &args.format).await?,
    }
    Ok(())
}

async fn set_certificate_life(client: &Client, life: Duration) -> Result<()> {
    let certificate_life = u64::try_from(life.as_micros()).unwrap_or(u64::MAX);
    client.clusters().set_certificate_life(v1::SetCertificateLifeRequest { certificate_life }).await?;
    Ok(())
}

async fn initialise(client: &Client, init: InitArgs) -> Result<()> {
    let request = v1::InitRequest {
        advertise_address: init.advertise_addr.unwrap_or_default(),
        data_address: init.data_path_addr.unwrap_or_default(),
        gateway_pool: init.gateway_pool.unwrap_or_default(),
        availability: wire_availability(init.availability),
    };
    let status = client.local("cluster init")?.init(request).await?.into_inner();
    if let Some(life) = init.cert_expiry {
        set_certificate_life(client, life).await?;
    }
    println!("Cluster initialized: this node ({}) is now a manager.\n", status.node_id);
    println!("To add a worker to this cluster, run on it:\n");
    print_join(client, Role::Worker).await?;
    println!("To add a manager, run 'swarmctl cluster join-token manager' and follow what it says.");
    if init.autolock {
        println!();
        lock::set(client, true).await?;
    }
    Ok(())
}

async fn update(client: &Client, cert_expiry: Option<Duration>, autolock: Option<bool>) -> Result<()> {
    if let Some(cert_expiry) = cert_expiry {
        set_certificate_life(client, cert_expiry).await?;
        println!(
            "Nodes have certificates of this life from their next renewal on; for one now: swarmctl cluster renew"
        );
    }
    match autolock {
        Some(autolock) => lock::set(client, autolock).await,
        None => Ok(()),
    }
}

pub fn wire_availability(availability: Availability) -> i32 {
    match availability {
        Availability::Active => v1::NodeAvailability::Active as i32,
        Availability::Pause => v1::NodeAvailability::Pause as i32,
        Availability::Drain => v1::NodeAvailability::Drain as i32,
    }
}

pub fn wire_role(role: Role) -> i32 {
    match role {
        Role::Worker => v1::NodeRole::Worker as i32,
        Role::Manager => v1::NodeRole::Manager as i32,
    }
}

pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}

async fn join_token(client: &Client, role: Role, quiet: bool, rotate: bool) -> Result<()> {
    let request = v1::GetJoinTokenRequest { role: wire_role(role) };
    if rotate {
        client.clusters().rotate_join_token(request).await?;
    }
    if quiet {
        println!("{}", client.clusters().get_join_token(request).await?.into_inner().token);
        return Ok(());
    }
    let name = role_name(role);
    if rotate {
        println!("The {name} token was rotated; the old one is refused from now on.\n");
    }
    println!("To add a {name} to this cluster, run on it:\n");
    print_join(client, role).await
}

async fn print_join(client: &Client, role: Role) -> Result<()> {
    let answer = client
        .clusters()
        .get_join_token(v1::GetJoinTokenRequest { role: wire_role(role) })
        .await?
        .into_inner();
    println!("    swarmctl cluster join --token {} {}\n", answer.token, answer.managers.join(" "));
    Ok(())
}

async fn info(client: &Client, format: &Format) -> Result<()> {
    if client.is_remote() {
        return show_info(about_cluster(client, true).await?, format);
    }
    let local = client.local("cluster info")?.status(v1::LocalStatusRequest {}).await?.into_inner();
    if local.cluster_id.is_empty() {
        return Err(Failure::failed("this node is in no cluster")
            .next("swarmctl cluster init   or: swarmctl cluster join --token …"));
    }
    if !local.notice.is_empty() {
        eprintln!("{}", local.notice);
    }
    if local.locked {
        return Err(Failure::new(Code::Locked, "this manager is locked")
            .why(format!(
                "node {} of cluster {} waits for its key; its containers go on",
                local.node_id, local.cluster_id
            ))
            .next("swarmctl cluster unlock"));
    }
    let role = if local.role() == v1::NodeRole::Manager { "manager" } else { "worker" };
    let mut fields: Fields = vec![
        ("Cluster", local.cluster_id.clone()),
        ("Node", format!("{} ({})", local.node_id, local.hostname)),
        ("Role", role.to_owned()),
        ("Connected", local.connected.to_string()),
        ("Managers", local.managers.join(", ")),
    ];
    if local.role() == v1::NodeRole::Manager {
        match about_cluster(client, false).await {
            Ok(known) => fields.extend(known),
            // What this node knows by itself is shown all the same.
            Err(failure) if failure.code == Code::Unreachable => {
                eprintln!("{failure}");
                fields.push(("Leader", "none".to_owned()));
            }
            Err(failure) => return Err(failure),
        }
    }
    show_info(fields, format)
}

type Fields = Vec<(&'static str, String)>;

async fn about_cluster(client: &Client, with_id: bool) -> Result<Fields> {
    let cluster = client.clusters().get(v1::GetClusterRequest {}).await?.into_inner();
    let mut fields = if with_id { vec![("Cluster", cluster.id)] } else { Vec::new() };
    fields.extend([
        ("Leader", cluster.leader_id),
        ("Nodes", format!("{} ({} managers)", cluster.nodes, cluster.managers)),
        ("Services", cluster.services.to_string()),
        ("Tasks", cluster.tasks.to_string()),
        ("GatewayPool", cluster.gateway_pool),
        ("Created", rfc3339(cluster.meta.map_or(0, |meta| meta.created_at))),
        ("Autolock", cluster.autolock.to_string()),
        ("RaftTerm", cluster.raft_term.to_string()),
        ("RaftApplied", cluster.raft_applied.to_string()),
    ]);
    Ok(fields)
}

fn show_info(fields: Fields, format: &Format) -> Result<()> {
    if *format == Format::Table {
        for (name, value) in fields {
            println!("{name:<12} {value}");
        }
        return Ok(());
    }
    let row = fields.into_iter().fold(Row::default(), |row, (name, value)| row.field(name, value));
    print(&[row], format, &[])
}
