//! The manager's process: this program again, with a directory to keep its state in.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use swarm_manager::{Bootstrap, Manager, ManagerConfig};
use swarm_model::Availability;
use swarm_network::NodeNetworkConfig;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// Name of the hidden subcommand.
const SUBCOMMAND: &str = "fleet-manager";

#[derive(Debug, clap::Args)]
pub struct ServeOptions {
    directory: PathBuf,
}

/// Founds a cluster in `directory` and serves it until standard input ends; prints its address first.
pub fn serve(options: &ServeOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve_until_told(&options.directory))
}

async fn serve_until_told(directory: &Path) -> anyhow::Result<()> {
    let listen = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let config = ManagerConfig {
        directory: directory.join("manager"),
        listen,
        advertise: listen.to_string(),
        raft_id: None,
        engine: super::agents::engine("manager", Ipv4Addr::LOCALHOST),
        insecure_registries: Vec::new(),
    };
    // It has no agent, so nothing could run on it anyway.
    let bootstrap =
        Bootstrap { gateway_pool: NodeNetworkConfig::DEFAULT_POOL, availability: Availability::Drain };
    let (manager, _) = Manager::bootstrap(config, bootstrap).await?;
    let operators = UnixListenerStream::new(UnixListener::bind(socket(directory))?);
    let server = Server::builder().add_routes(manager.local_routes()).serve_with_incoming(operators);
    println!("{}", manager.address());
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    tokio::select! {
        served = server => served?,
        () = manager.failed() => anyhow::bail!("the manager failed"),
        told = end => drop(told??),
    }
    manager.stop().await;
    Ok(())
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("manager.sock")
}

/// A manager that runs. It ends with its standard input, so also when this process is killed.
pub struct ManagerProcess {
    child: Child,
    socket: PathBuf,
    address: String,
    /// Read no further, but open: a closed one would kill whoever writes.
    _output: BufReader<ChildStdout>,
}

impl ManagerProcess {
    /// Returns when it answers.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SUBCOMMAND)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the manager's process")?;
        let mut output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut address = String::new();
        output.read_line(&mut address)?;
        ensure!(!address.is_empty(), "the manager ended: {}", child.wait()?);
        let address = address.trim().to_owned();
        Ok(Self { child, socket: socket(directory), address, _output: output })
    }

    /// `host:port` for agents.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// For operators.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended in good order.
    pub fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the manager ended: {status}");
        Ok(())
    }
}

impl Drop for ManagerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
