//! The commands and their arguments. Names and flags are Docker's wherever Docker has them.

mod cluster;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use swarm_proto::v1;

use crate::flags::{CreateFlags, UpdateFlags};
use crate::output::Format;
use crate::parse;

pub use cluster::{ClusterCommand, ContextCommand, InitArgs, OperatorCommand, OperatorRole};

/// Runs services on a cluster of Linux hosts.
#[derive(Debug, Parser)]
#[command(name = "swarmctl", version, propagate_version = true, infer_subcommands = false)]
pub struct Cli {
    /// Cluster to talk to, by the name of its context (swarmd dev makes "dev")
    #[arg(long, global = true, env = "SWARMCTL_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Socket to talk to, instead of a context's
    #[arg(short = 'H', long, global = true, env = "SWARM_HOST", value_name = "unix:///PATH")]
    pub host: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, join and leave a cluster
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Choose the cluster that commands talk to
    #[command(subcommand)]
    Context(ContextCommand),
    /// Manage nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Manage services
    #[command(subcommand)]
    Service(Box<ServiceCommand>),
    /// Look at tasks
    #[command(subcommand)]
    Task(TaskCommand),
    /// Manage the cluster's images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Show who changed what, and what became of tasks
    Events(EventsArgs),
    /// Run one container on the cluster, attached, and pass its exit code on
    Run(Box<RunArgs>),
    /// Show the versions of swarmctl and of the node it talks to
    Version(FormatArgs),
    /// Print a completion script
    Completion { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub struct FormatArgs {
    /// table, json, or a template such as '{{.ID}} {{.Name}}'
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub format: FormatArgs,
    /// Show only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Show only what matches, as KEY=VALUE
    #[arg(short, long, value_parser = parse::key_value, value_name = "KEY=VALUE")]
    pub filter: Vec<(String, String)>,
    /// Do not shorten ids
    #[arg(long)]
    pub no_trunc: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Role {
    Worker,
    Manager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Availability {
    Active,
    Pause,
    Drain,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show nodes in full ("self" is the one talked to)
    Inspect {
        #[arg(required = true)]
        nodes: Vec<String>,
        #[arg(long)]
        pretty: bool,
        #[arg(short, long)]
        format: Option<Format>,
    },
    /// List the tasks of nodes
    Ps {
        #[arg(default_value = "self")]
        nodes: Vec<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Change a node
    Update {
        node: String,
        #[arg(long, value_enum)]
        availability: Option<Availability>,
        #[arg(long, value_enum)]
        role: Option<Role>,
        #[arg(long, value_parser = parse::label, value_name = "KEY=VALUE")]
        label_add: Vec<(String, String)>,
        #[arg(long, value_name = "KEY")]
        label_rm: Vec<String>,
    },
    /// Make nodes managers
    Promote {
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Make managers workers
    Demote {
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Remove nodes from the cluster
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Even if it is not down
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Return at once
    #[arg(short, long)]
    pub detach: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Give up waiting after this time; the operation goes on
    #[arg(long, value_parser = parse::duration, value_name = "DURATION", default_value = "10m")]
    pub timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Create a service; returns when all of it runs
    Create {
        #[command(flatten)]
        flags: Box<CreateFlags>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// List services
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// List the tasks of services
    Ps {
        #[arg(required = true)]
        services: Vec<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show services in full
    Inspect {
        #[arg(required = true)]
        services: Vec<String>,
        #[arg(long)]
        pretty: bool,
        #[arg(short, long)]
        format: Option<Format>,
    },
    /// Set the number of replicas
    Scale {
        #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = parse::key_value)]
        targets: Vec<(String, String)>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Change a service
    Update {
        service: String,
        #[command(flatten)]
        flags: Box<UpdateFlags>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Return to an earlier revision
    Rollback {
        service: String,
        /// Revision to return to [default: the previous one]
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Show the logs of a service or a task
    Logs(LogsArgs),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true)]
        services: Vec<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Service or task
    pub target: String,
    #[arg(short, long)]
    pub follow: bool,
    /// Last lines per task, or "all"
    #[arg(short = 'n', long, default_value = "all")]
    pub tail: String,
    /// Only lines after this: 10m, or an RFC 3339 time
    #[arg(long)]
    pub since: Option<String>,
    #[arg(short, long)]
    pub timestamps: bool,
    /// Lines only, without the task in front
    #[arg(long)]
    pub raw: bool,
    #[arg(long)]
    pub no_trunc: bool,
}

#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// List all tasks
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show tasks in full
    Inspect {
        #[arg(required = true)]
        tasks: Vec<String>,
        #[arg(short, long)]
        format: Option<Format>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Load an archive (docker save, OCI) for all nodes
    Load {
        /// Archive to read [default: stdin]
        #[arg(short, long, value_name = "FILE")]
        input: Option<std::path::PathBuf>,
        #[arg(short, long)]
        quiet: bool,
    },
    /// List the cluster's images
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Pull from a registry for all nodes
    Pull {
        image: String,
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove images from the cluster
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
        /// Even if services use it
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only later events: behind an index (1234), for a duration (10m), or since an RFC 3339 time
    #[arg(long, value_name = "INDEX|DURATION|TIME")]
    pub since: Option<String>,
    /// Wait for more
    #[arg(short, long)]
    pub follow: bool,
    /// Only events about these
    #[arg(long = "type", value_enum, value_delimiter = ',', value_name = "TYPE")]
    pub kinds: Vec<EventKind>,
    /// Only what matches, as KEY=VALUE: actor, verb, name, id, node, service, state
    #[arg(long, value_parser = parse::key_value, value_name = "KEY=VALUE")]
    pub filter: Vec<(String, String)>,
    /// At most so many: the newest ones, or the first ones where --since or --filter is given
    #[arg(short = 'n', long)]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventKind {
    Cluster,
    Operator,
    Node,
    Service,
    Image,
    Task,
}

impl EventKind {
    pub fn wire(self) -> v1::ObjectKind {
        match self {
            Self::Cluster => v1::ObjectKind::Cluster,
            Self::Operator => v1::ObjectKind::Operator,
            Self::Node => v1::ObjectKind::Node,
            Self::Service => v1::ObjectKind::Service,
            Self::Image => v1::ObjectKind::Image,
            Self::Task => v1::ObjectKind::Task,
        }
    }
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub flags: CreateFlags,
    /// Give up if it does not start in this time
    #[arg(long, value_parser = parse::duration, value_name = "DURATION", default_value = "2m")]
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_arguments_of_a_command_clash() {
        Cli::command().debug_assert();
        let parsed = Cli::try_parse_from([
            "swarmctl",
            "-H",
            "unix:///x",
            "service",
            "create",
            "--add-host",
            "a:10.0.0.1",
            "web",
        ]);
        assert!(parsed.is_ok_and(|cli| cli.host.is_some()));
    }
}
