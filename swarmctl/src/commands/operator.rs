//! `cluster operator-token` and `cluster operator ls|rm`.

use std::time::Duration;

use swarm_proto::v1;

use crate::cli::{ListArgs, OperatorCommand, OperatorRole};
use crate::client::Client;
use crate::failure::Result;
use crate::output::{Row, filter, print, rfc3339, short};

pub async fn token(
    client: &Client,
    role: OperatorRole,
    name: Option<String>,
    life: Duration,
    quiet: bool,
) -> Result<()> {
    let request = v1::InviteOperatorRequest {
        name: name.unwrap_or_default(),
        role: wire_role(role) as i32,
        token_life_ms: u64::try_from(life.as_millis()).unwrap_or(u64::MAX),
    };
    let answer = client.operators().invite(request).await?.into_inner();
    if quiet {
        println!("{}", answer.token);
        return Ok(());
    }
    let operator = answer.operator.unwrap_or_default();
    println!(
        "To command this cluster as {} ({}), run on your machine, before {}:\n",
        operator.name,
        role_name(operator.role()),
        rfc3339(operator.token_until)
    );
    println!(
        "    swarmctl context create swarm --manager {} --token {}\n",
        answer.managers.join(","),
        answer.token
    );
    println!("The token works once. 'swarmctl cluster operator rm {}' takes the access back.", operator.name);
    Ok(())
}

pub async fn run(client: &Client, command: OperatorCommand) -> Result<()> {
    match command {
        OperatorCommand::Ls(args) => list(client, &args).await,
        OperatorCommand::Rm { operators } => {
            for operator in operators {
                client.operators().remove(v1::RemoveOperatorRequest { operator: operator.clone() }).await?;
                println!("{operator}");
            }
            Ok(())
        }
    }
}

async fn list(client: &Client, args: &ListArgs) -> Result<()> {
    let operators = client.operators().list(v1::ListOperatorsRequest {}).await?.into_inner().operators;
    let rows = operators.iter().map(|operator| row(operator, args.no_trunc)).collect();
    let keys = [("id", "FullID"), ("name", "Name"), ("role", "Role"), ("state", "State")];
    let mut rows = filter(rows, &args.filter, &keys)?;
    rows.sort_by_key(|row| row.text("Name"));
    if args.quiet {
        rows.iter().filter_map(|row| row.text("Name")).for_each(|name| println!("{name}"));
        return Ok(());
    }
    print(&rows, &args.format.format, &["NAME", "ROLE", "STATE", "EXPIRES", "CREATED BY", "ID"])
}

fn row(operator: &v1::Operator, full: bool) -> Row {
    let now = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0);
    let (word, until) = match operator.enrolled_at {
        0 => ("invited", operator.token_until),
        _ => ("active", operator.valid_until),
    };
    let state = if until < now { "expired" } else { word };
    Row::default()
        .column("NAME", "Name", operator.name.clone())
        .column("ROLE", "Role", role_name(operator.role()))
        .column("STATE", "State", state)
        .column("EXPIRES", "Expires", rfc3339(until))
        .column("CREATED BY", "CreatedBy", operator.created_by.clone())
        .column("ID", "ID", short(&operator.id, full))
        .field("FullID", operator.id.clone())
        .field("CreatedAt", rfc3339(operator.created_at))
        .field("EnrolledAt", rfc3339(operator.enrolled_at))
}

fn wire_role(role: OperatorRole) -> v1::OperatorRole {
    match role {
        OperatorRole::ReadOnly => v1::OperatorRole::ReadOnly,
        OperatorRole::Deployer => v1::OperatorRole::Deployer,
        OperatorRole::Admin => v1::OperatorRole::Admin,
    }
}

fn role_name(role: v1::OperatorRole) -> &'static str {
    match role {
        v1::OperatorRole::Unspecified => "unknown",
        v1::OperatorRole::ReadOnly => "read-only",
        v1::OperatorRole::Deployer => "deployer",
        v1::OperatorRole::Admin => "admin",
    }
}
