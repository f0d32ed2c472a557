//! `service create|ls|ps|inspect|scale|update|rollback|logs|rm`.

mod object;
mod pretty;

use std::collections::BTreeMap;

use swarm_model::Id;
use swarm_proto::v1;

pub use object::task_object;

use super::task::{print_tasks, short_image};
use super::{logs, print_objects};
use crate::cli::{ListArgs, ServiceCommand, WaitArgs};
use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use crate::flags::{CreateFlags, UpdateFlags};
use crate::output::{Row, filter, joined, print, short};
use crate::progress::{self, Goal};

/// Times that an update is tried again where somebody else changed the service in between.
const MAX_CONFLICTS: u32 = 5;

pub async fn run(client: &Client, command: ServiceCommand) -> Result<()> {
    match command {
        ServiceCommand::Create { flags, wait } => create_and_wait(client, &flags, &wait).await,
        ServiceCommand::Ls(args) => list(client, &args).await,
        ServiceCommand::Ps { services, list } => {
            let mut tasks = Vec::new();
            for name in services {
                let service_id = get(client, &name).await?.id;
                let request = v1::ListTasksRequest { service_id, ..Default::default() };
                tasks.extend(client.tasks().list(request).await?.into_inner().tasks);
            }
            print_tasks(tasks, &list)
        }
        ServiceCommand::Inspect { services, pretty, format } => {
            let mut found = Vec::new();
            for name in &services {
                found.push(get(client, name).await?);
            }
            if pretty {
                found.iter().for_each(pretty::show);
                return Ok(());
            }
            print_objects(found.iter().map(object::service_object).collect(), format.as_ref())
        }
        ServiceCommand::Scale { targets, wait } => scale(client, &targets, &wait).await,
        ServiceCommand::Update { service, flags, wait } => update(client, &service, &flags, &wait).await,
        ServiceCommand::Rollback { service, to, wait } => rollback(client, &service, to, &wait).await,
        ServiceCommand::Logs(args) => logs::run(client, args).await,
        ServiceCommand::Rm { services, wait } => remove(client, &services, &wait).await,
    }
}

async fn get(client: &Client, name: &str) -> Result<v1::Service> {
    Ok(client.services().get(v1::GetServiceRequest { service: name.to_owned() }).await?.into_inner())
}

/// Creates a service; warnings go to stderr.
pub async fn create(client: &Client, spec: v1::ServiceSpec) -> Result<v1::Service> {
    // With an id of ours, asking again never makes a second one.
    let request_id = Id::from_u128(rand::random()).to_string();
    let request = v1::CreateServiceRequest { spec: Some(spec), request_id };
    let created = client.persist(|| {
        let (mut services, request) = (client.services(), request.clone());
        async move { services.create(request).await }
    });
    let answer = created.await?.into_inner();
    answer.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    answer.service.ok_or_else(|| Failure::failed("the manager answered without a service"))
}

/// A name from the image's, made unique enough by the time.
pub fn generated_name(image: &str) -> String {
    let base = image.split('@').next().unwrap_or(image).rsplit('/').next().unwrap_or(image);
    let base = base.split(':').next().unwrap_or(base);
    let base: String = base.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    let base = base.trim_matches('-');
    let nanos = jiff::Timestamp::now().subsec_nanosecond();
    format!("{}-{:x}", if base.is_empty() { "service" } else { base }, nanos)
}

async fn create_and_wait(client: &Client, flags: &CreateFlags, wait: &WaitArgs) -> Result<()> {
    let mut spec = flags.spec();
    if spec.name.is_empty() {
        spec.name = generated_name(&flags.image);
    }
    let service = create(client, spec).await?;
    println!("{}", service.id);
    follow(client, &service, Goal::Running, wait).await
}

async fn follow(client: &Client, service: &v1::Service, goal: Goal, wait: &WaitArgs) -> Result<()> {
    if wait.detach { Ok(()) } else { progress::wait(client, service, goal, wait).await }
}

/// Reads, changes and writes back a spec; again where the version was no longer the current one.
async fn change(client: &Client, name: &str, edit: impl Fn(&mut v1::ServiceSpec)) -> Result<v1::Service> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let service = get(client, name).await?;
        let mut spec = service.spec.clone().unwrap_or_default();
        edit(&mut spec);
        let version = service.meta.map_or(0, |meta| meta.version);
        let request = v1::UpdateServiceRequest { service_id: service.id, version, spec: Some(spec) };
        match client.services().update(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                answer.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                return answer
                    .service
                    .ok_or_else(|| Failure::failed("the manager answered without a service"));
            }
            Err(status) if status.code() == tonic::Code::Aborted && attempt < MAX_CONFLICTS => {}
            Err(status) => return Err(status.into()),
        }
    }
}

async fn scale(client: &Client, targets: &[(String, String)], wait: &WaitArgs) -> Result<()> {
    let mut counts = BTreeMap::new();
    for (name, count) in targets {
        let replicas: u32 = count
            .parse()
            .map_err(|_| Failure::usage(format!("{name}={count}: {count:?} is not a number of replicas")))?;
        counts.insert(name, replicas);
    }
    let mut changed = Vec::new();
    for (name, replicas) in counts {
        let replicated = v1::service_mode::Replicated { replicas };
        let mode = v1::ServiceMode { mode: Some(v1::service_mode::Mode::Replicated(replicated)) };
        changed.push(change(client, name, |spec| spec.mode = Some(mode)).await?);
        println!("{name} scaled to {replicas}");
    }
    for service in changed {
        follow(client, &service, Goal::Running, wait).await?;
    }
    Ok(())
}

async fn update(client: &Client, name: &str, flags: &UpdateFlags, wait: &WaitArgs) -> Result<()> {
    if flags.rollback {
        return rollback(client, name, None, wait).await;
    }
    let service = change(client, name, |spec| flags.apply(spec)).await?;
    println!("{name}");
    let rolling =
        service.update.as_ref().is_some_and(|update| update.state() == v1::update_status::State::Updating);
    follow(client, &service, if rolling { Goal::Updated } else { Goal::Running }, wait).await
}

async fn rollback(client: &Client, name: &str, to: Option<u64>, wait: &WaitArgs) -> Result<()> {
    let service = get(client, name).await?;
    let version = service.meta.map_or(0, |meta| meta.version);
    let request =
        v1::RollbackServiceRequest { service_id: service.id, version, to_revision: to.unwrap_or(0) };
    let answer = client.services().rollback(request).await?.into_inner();
    let service = answer.service.ok_or_else(|| Failure::failed("the manager answered without a service"))?;
    println!("{name}");
    match follow(client, &service, Goal::Updated, wait).await {
        // Here it is what was asked for.
        Err(failure) if failure.code == Code::RolledBack => Ok(()),
        other => other,
    }
}

async fn remove(client: &Client, names: &[String], wait: &WaitArgs) -> Result<()> {
    let mut removed = Vec::new();
    for name in names {
        let service = get(client, name).await?;
        client.services().remove(v1::RemoveServiceRequest { service_id: service.id.clone() }).await?;
        println!("{name}");
        removed.push(service);
    }
    for service in removed {
        follow(client, &service, Goal::Removed, wait).await?;
    }
    Ok(())
}

async fn list(client: &Client, args: &ListArgs) -> Result<()> {
    let services = client.services().list(v1::ListServicesRequest {}).await?.into_inner().services;
    let rows = services.iter().map(|service| row(service, args.no_trunc)).collect();
    let rows = filter(
        rows,
        &args.filter,
        &[("id", "FullID"), ("name", "Name"), ("label", "Labels"), ("mode", "Mode")],
    )?;
    if args.quiet {
        rows.iter().filter_map(|row| row.text("FullID")).for_each(|id| println!("{id}"));
        return Ok(());
    }
    print(&rows, &args.format.format, &["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"])
}

fn row(service: &v1::Service, full: bool) -> Row {
    let spec = service.spec.clone().unwrap_or_default();
    let ports: Vec<String> = service.ports.iter().map(port).collect();
    Row::default()
        .column("ID", "ID", short(&service.id, full))
        .column("NAME", "Name", spec.name.clone())
        .column("MODE", "Mode", "replicated")
        .column("REPLICAS", "Replicas", format!("{}/{}", service.running_tasks, service.desired_tasks))
        .column("IMAGE", "Image", short_image(&image(&spec)))
        .column("PORTS", "Ports", ports.join(", "))
        .field("FullID", service.id.clone())
        .field("Labels", joined(&spec.labels))
}

pub fn image(spec: &v1::ServiceSpec) -> String {
    let container = spec.task.as_ref().and_then(|task| task.container.as_ref());
    container
        .and_then(|container| container.image.as_ref())
        .map(|image| image.name.clone())
        .unwrap_or_default()
}

/// `*:8080->80/tcp`, as Docker shows it.
pub fn port(port: &v1::PortSpec) -> String {
    let protocol = if port.protocol() == v1::port_spec::Protocol::Udp { "udp" } else { "tcp" };
    format!("*:{}->{}/{protocol}", port.published, port.target)
}
