//! Commands on the cluster itself, and on who may command it.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Availability, FormatArgs, ListArgs, Role};
use crate::output::Format;
use crate::parse;

/// What an operator may do; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OperatorRole {
    /// Look, watch, read logs
    ReadOnly,
    /// Change services, tasks and images
    Deployer,
    /// Change everything
    Admin,
}

#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// List operators
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Take their access back, at once
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true, value_name = "NAME")]
        operators: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Make a context with a token of 'swarmctl cluster operator-token'
    Create {
        name: String,
        /// Managers, tried in order
        #[arg(long, required = true, value_delimiter = ',', value_name = "HOST[:PORT]")]
        manager: Vec<String>,
        #[arg(long, env = "SWARMCTL_TOKEN", hide_env_values = true)]
        token: String,
        /// Even if there is one of that name
        #[arg(short, long)]
        force: bool,
    },
    /// Make a context the one that commands talk to; "default" is this machine's daemon
    Use { name: String },
    /// List contexts
    #[command(visible_alias = "list")]
    Ls(FormatArgs),
    /// Show a context, the current one where none is named
    #[command(visible_alias = "inspect")]
    Show {
        name: Option<String>,
        #[arg(short, long)]
        format: Option<Format>,
    },
    /// Forget contexts and their keys
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Address that other nodes reach this one at [default: that of the default route]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise_addr: Option<String>,
    /// Address of the data path [default: the advertised one]
    #[arg(long, value_name = "ADDRESS")]
    pub data_path_addr: Option<String>,
    /// Addresses of the tasks' gateway network
    #[arg(long, value_name = "CIDR")]
    pub gateway_pool: Option<String>,
    #[arg(long, value_enum, default_value = "active")]
    pub availability: Availability,
    /// Life of nodes' certificates, 1h to 90 days [default: 90 days]
    #[arg(long, value_parser = parse::certificate_life, value_name = "DURATION")]
    pub cert_expiry: Option<Duration>,
    /// Lock managers: after a restart they wait for the unlock key, which is printed once
    #[arg(long)]
    pub autolock: bool,
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster with this node as its first manager
    Init(InitArgs),
    /// Change the cluster
    #[command(arg_required_else_help = true)]
    Update {
        /// Life of nodes' certificates from their next renewal on, 1h to 90 days
        #[arg(long, value_parser = parse::certificate_life, value_name = "DURATION")]
        cert_expiry: Option<Duration>,
        /// Whether managers wait for the unlock key after a restart
        #[arg(long, value_name = "true|false")]
        autolock: Option<bool>,
    },
    /// Print the root certificate, or replace it by a new one
    Ca {
        /// Make a new root; every node renews its certificate, nothing is restarted, the join tokens change
        #[arg(long)]
        rotate: bool,
        /// Do not wait for the nodes
        #[arg(short, long, requires = "rotate")]
        detach: bool,
        /// Show no progress
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show or rotate the key that unlocks managers after a restart
    UnlockKey {
        /// Print the key only
        #[arg(short, long)]
        quiet: bool,
        #[arg(long)]
        rotate: bool,
    },
    /// Unlock this manager; the key is read from the terminal, or from stdin
    Unlock,
    /// Write the cluster's whole state to a file, while it runs
    Backup {
        /// File to write, or "-" for stdout; with --verify, file to check
        file: std::path::PathBuf,
        /// Only check that a backup is whole, and show what it holds
        #[arg(long)]
        verify: bool,
    },
    /// Make this node the only manager of the cluster of a backup
    Restore {
        file: std::path::PathBuf,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Address that other nodes reach this one at [default: that of the default route]
        #[arg(long, value_name = "HOST[:PORT]")]
        advertise_addr: Option<String>,
        /// Address of the data path [default: the advertised one]
        #[arg(long, value_name = "ADDRESS")]
        data_path_addr: Option<String>,
    },
    /// Make this manager the only one, where the others are lost for good
    Recover {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Join this node to a cluster
    Join {
        #[arg(long, env = "SWARM_JOIN_TOKEN", hide_env_values = true)]
        token: String,
        /// Managers of the cluster
        #[arg(required = true, value_name = "HOST[:PORT]")]
        managers: Vec<String>,
        #[arg(long, value_name = "HOST[:PORT]")]
        advertise_addr: Option<String>,
        #[arg(long, value_name = "ADDRESS")]
        data_path_addr: Option<String>,
    },
    /// Show or rotate the token that nodes join with
    JoinToken {
        role: Role,
        #[arg(short, long)]
        quiet: bool,
        #[arg(long)]
        rotate: bool,
    },
    /// Stop this node's tasks and take it out of its cluster
    Leave {
        #[arg(short, long)]
        force: bool,
    },
    /// Make a token by which somebody commands this cluster from their own machine
    OperatorToken {
        #[arg(long, value_enum, default_value = "admin")]
        role: OperatorRole,
        /// Who it is for [default: one is made up]
        #[arg(long)]
        name: Option<String>,
        /// How long the token may be used, once; at most 24h
        #[arg(long, value_parser = parse::duration, value_name = "DURATION", default_value = "15m")]
        ttl: Duration,
        /// Only the token
        #[arg(short, long)]
        quiet: bool,
    },
    /// Manage who may command this cluster
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Show the cluster, as this node sees it
    Info(FormatArgs),
    /// Give this node a new certificate now; it does so by itself in good time
    Renew,
    /// Look for what keeps this node, or the cluster, from its work
    Doctor(FormatArgs),
}
