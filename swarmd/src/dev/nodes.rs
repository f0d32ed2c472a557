//! The node processes of a dev cluster.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal};
use swarm_network::DevNetwork;
use swarm_proto::v1;
use tonic::transport::{Channel, Endpoint, Uri};

use super::place::Place;

const START: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(5);
const WATCH: Duration = Duration::from_millis(200);

#[derive(Default)]
pub struct Nodes(Vec<Node>);

struct Node {
    number: u16,
    child: Child,
    gone: bool,
}

impl Nodes {
    pub fn start(&mut self, number: u16, network: &DevNetwork, place: &Place) -> anyhow::Result<()> {
        let data = place.data(number);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&data)?;
        let log = File::create(data.join("swarmd.log"))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("swarmd")
            .arg("--data-dir")
            .arg(&data)
            .arg("--socket")
            .arg(place.socket(number))
            .args(["--listen", &format!("{}:{}", network.address(number), crate::config::DEFAULT_PORT)])
            .args(["--hostname", &format!("node-{number}")])
            .args(["--cgroup-parent", &place.cgroup_parent(number)])
            .arg("--ephemeral")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at the terminal is for us; we end the nodes.
            .process_group(0);
        let child =
            network.spawn(number, &mut command).with_context(|| format!("cannot start node {number}"))?;
        self.0.push(Node { number, child, gone: false });
        Ok(())
    }

    /// Node 1 makes the cluster, the others join it, all at the same time; returns when all are ready.
    pub async fn form_cluster(&mut self, network: &DevNetwork, place: &Place) -> anyhow::Result<()> {
        let formed = async {
            let first = connect(&place.socket(1)).await;
            let init =
                v1::InitRequest { advertise_address: network.address(1).to_string(), ..Default::default() };
            v1::local_client::LocalClient::new(first.clone()).init(init).await.map_err(told)?;
            let request = v1::GetJoinTokenRequest { role: v1::NodeRole::Worker as i32 };
            let token = v1::clusters_client::ClustersClient::new(first.clone())
                .get_join_token(request)
                .await
                .map_err(told)?;
            let token = token.into_inner();
            let mut joins = tokio::task::JoinSet::new();
            for number in 2..=network.nodes() {
                let request = v1::JoinRequest {
                    token: token.token.clone(),
                    managers: token.managers.clone(),
                    advertise_address: network.address(number).to_string(),
                    ..Default::default()
                };
                let socket = place.socket(number);
                joins.spawn(async move {
                    let channel = connect(&socket).await;
                    v1::local_client::LocalClient::new(channel).join(request).await.map_err(told)
                });
            }
            while let Some(joined) = joins.join_next().await {
                joined??;
            }
            all_ready(first, usize::from(network.nodes())).await
        };
        tokio::select! {
            formed = tokio::time::timeout(START, formed) => formed.context("the nodes did not form a cluster in time")?,
            ended = any_end(&mut self.0) => bail!("{}", ended_text(ended, place)),
        }
    }

    /// Says when a node ends; only the end of the last one is an end of this.
    pub async fn watch(&mut self) -> anyhow::Result<()> {
        loop {
            let number = any_end(&mut self.0).await;
            eprintln!("node-{number} has ended; its tasks are started elsewhere");
            if self.0.iter().all(|node| node.gone) {
                bail!("all nodes have ended");
            }
        }
    }

    /// Asks all to stop and to remove their containers; kills those that do not.
    pub async fn stop(&mut self, limit: Duration) -> anyhow::Result<()> {
        for node in self.0.iter().filter(|node| !node.gone) {
            send(&node.child, Signal::TERM);
        }
        let end = Instant::now() + limit;
        let mut killed = Vec::new();
        while self.0.iter_mut().any(|node| !node.has_ended()) {
            if Instant::now() > end {
                for node in self.0.iter_mut().filter(|node| !node.gone) {
                    killed.push(node.number);
                    node.child.kill().context("cannot kill a node")?;
                    node.child.wait().context("cannot wait for a node")?;
                    node.gone = true;
                }
            }
            tokio::time::sleep(POLL).await;
        }
        if killed.is_empty() { Ok(()) } else { bail!("nodes {killed:?} had to be killed") }
    }
}

impl Node {
    fn has_ended(&mut self) -> bool {
        self.gone |= !matches!(self.child.try_wait(), Ok(None));
        self.gone
    }
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Not waited for yet, so the number is still its own.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The number of the next node that ends.
async fn any_end(nodes: &mut [Node]) -> u16 {
    loop {
        if let Some(number) = nodes
            .iter_mut()
            .filter(|node| !node.gone)
            .find_map(|node| node.has_ended().then_some(node.number))
        {
            return number;
        }
        tokio::time::sleep(WATCH).await;
    }
}

fn ended_text(number: u16, place: &Place) -> String {
    let log = std::fs::read_to_string(place.data(number).join("swarmd.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(10).collect();
    let lines: Vec<&str> = lines.into_iter().rev().collect();
    format!("node {number} did not start; the end of its log:\n{}", lines.join("\n"))
}

async fn all_ready(manager: Channel, nodes: usize) -> anyhow::Result<()> {
    let mut client = v1::nodes_client::NodesClient::new(manager);
    loop {
        let list = client.list(v1::ListNodesRequest {}).await.map_err(told)?.into_inner().nodes;
        if list.iter().filter(|node| node.state() == v1::NodeState::Ready).count() == nodes {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Connects as soon as the node listens; the caller bounds the wait.
pub async fn connect(socket: &Path) -> Channel {
    loop {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        match Endpoint::from_static("http://swarmd.local").connect_with_connector(connector).await {
            Ok(channel) => return channel,
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

fn told(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}
