//! The command line of the daemon.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The daemon of a node: runs its containers and, on managers, keeps the cluster's state.
///
/// Started without a cluster it waits for `swarmctl cluster init` or `swarmctl cluster join`; afterwards it comes back
/// into its cluster by itself.
#[derive(Debug, Parser)]
#[command(name = "swarmd", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Write the log as JSON lines
    #[arg(long, global = true)]
    pub log_json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a throw-away cluster on this machine, until Ctrl-C
    Dev(DevArgs),
}

/// Every one of these can stand in the configuration file too; the flag wins.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArgs {
    /// Configuration file [default: /etc/swarm/swarmd.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the node keeps its state [default: /var/lib/swarm]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The local socket [default: /run/swarm/swarmd.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where managers listen [default: 0.0.0.0:2377]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddrV4>,
    /// Name of the node [default: the machine's]
    #[arg(long)]
    pub hostname: Option<String>,
    /// Label of the engine, for placement (engine.labels.KEY)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Cgroup under which the containers' are made [default: swarm]
    #[arg(long, value_name = "NAME")]
    pub cgroup_parent: Option<String>,
    /// Registry that is spoken to without TLS (localhost always is)
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    pub insecure_registries: Vec<String>,
    /// Remove all containers when the daemon stops
    #[arg(long, hide = true)]
    pub ephemeral: bool,
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Number of nodes
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub nodes: u16,
    /// Name of the cluster, and of its context
    #[arg(long, default_value = "dev")]
    pub name: String,
}
