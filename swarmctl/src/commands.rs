//! One module per noun; each function is one command.

mod ca;
mod cluster;
mod context;
mod doctor;
mod events;
mod image;
mod lock;
mod logs;
mod node;
mod operator;
mod recovery;
mod run;
mod service;
mod task;
mod version;

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::client::Client;
use crate::context::{Remote, Target, target};
use crate::failure::Result;
use crate::renewal::Renewal;

/// Runs the command.
///
/// # Errors
/// What the operator is to be told, with the exit code.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    if let Command::Completion { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "swarmctl", &mut script);
        std::io::stdout().write_all(&script)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Context(command) = cli.command {
        return context::run(cli.context.as_deref(), command).await.map(|()| ExitCode::SUCCESS);
    }
    let target = target(cli.host, cli.context.as_deref());
    if let Command::Version(args) = &cli.command {
        return version::show(target, &args.format).await.map(|()| ExitCode::SUCCESS);
    }
    let target = target?;
    let client = Client::connect(&target).await?;
    let remote = match &target {
        Target::Managers(remote) => Some(remote),
        Target::Socket(_) => None,
    };
    let renewal = Renewal::start(&client, remote);
    let done = connected(&client, cli.command).await;
    if !renewal.finish().await
        && let Some(Remote { managers, .. }) = remote
    {
        client.remember(managers);
    }
    done
}

async fn connected(client: &Client, command: Command) -> Result<ExitCode> {
    match command {
        Command::Cluster(command) => cluster::run(client, command).await?,
        Command::Node(command) => node::run(client, command).await?,
        Command::Service(command) => service::run(client, *command).await?,
        Command::Task(command) => task::run(client, command).await?,
        Command::Image(command) => image::run(client, command).await?,
        Command::Events(args) => events::run(client, args).await?,
        Command::Run(args) => return run::run(client, *args).await,
        Command::Version(_) | Command::Completion { .. } | Command::Context(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an object as inspect commands do: a JSON array, or a template over each object.
fn print_objects(objects: Vec<serde_json::Value>, format: Option<&crate::output::Format>) -> Result<()> {
    use crate::output::{Format, Row, print};
    match format {
        None | Some(Format::Table | Format::Json) => {
            let text = serde_json::to_string_pretty(&objects).map_err(std::io::Error::from)?;
            writeln!(std::io::stdout(), "{text}")?;
            Ok(())
        }
        Some(format @ Format::Template { .. }) => {
            let rows: Vec<Row> = objects.into_iter().map(Row::from_object).collect();
            print(&rows, format, &[])
        }
    }
}
