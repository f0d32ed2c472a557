//! Managers as real daemons on hosts of their own, for benchmarks of a whole control plane.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use swarm_manager::keys::{Keyring, Opened};
use swarm_pki::{Credentials, Dialler};
use swarm_proto::v1;
use swarm_proto::v1::nodes_client::NodesClient;

use super::calls::Calls;
use super::operator::Operator;
use super::process::{self, Usage};
use crate::e2e::{Cluster, Options};

/// The manager's thread that writes its log, and what it makes segments of.
const LOG_THREAD: &str = "manager-log";
const SEGMENT_BYTES: u64 = 8 << 20;
/// For a leader to be there.
const ATTEMPTS: u32 = 500;
const POLL: Duration = Duration::from_millis(20);
/// A connection for each of thousands of agents, in one process.
const OPEN_FILES: u64 = 16_384;

/// Nodes 1 to n, all of them managers. None takes tasks.
#[derive(Debug)]
pub struct Managers {
    pub cluster: Cluster,
    count: u16,
    /// A node behind them that may become one more.
    spare: Option<u16>,
}

impl Managers {
    /// # Errors
    /// Too few files may be opened.
    ///
    /// # Panics
    /// The daemons cannot be started.
    pub fn start(count: u16) -> anyhow::Result<Self> {
        Self::with_workers(count, 0)
    }

    /// Also nodes that take tasks, after the managers.
    ///
    /// # Errors
    /// Too few files may be opened.
    ///
    /// # Panics
    /// The daemons cannot be started.
    pub fn with_workers(count: u16, workers: u16) -> anyhow::Result<Self> {
        let options = Options { nodes: count + workers, managers: count, ..Options::default() };
        Self::of(options, None)
    }

    /// Also a daemon that is in no cluster yet.
    ///
    /// # Errors
    /// Too few files may be opened.
    ///
    /// # Panics
    /// The daemons cannot be started.
    pub fn with_spare(count: u16) -> anyhow::Result<Self> {
        let options = Options { nodes: count + 1, managers: count, spares: 1, ..Options::default() };
        Self::of(options, Some(count + 1))
    }

    fn of(options: Options, spare: Option<u16>) -> anyhow::Result<Self> {
        process::allow_open_files(OPEN_FILES)?;
        let count = options.managers;
        let cluster = Cluster::with(options);
        for number in 1..=count {
            cluster.ctl_ok(&["node", "update", "--availability", "drain", &format!("node-{number}")]);
        }
        Ok(Self { cluster, count, spare })
    }

    pub fn all(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.count
    }

    /// And the one that joined.
    pub fn with_joined(&self) -> impl Iterator<Item = u16> + use<> {
        self.all().chain(self.spare)
    }

    /// The spare node becomes a manager; how long until it votes.
    ///
    /// # Errors
    /// There is none.
    ///
    /// # Panics
    /// It does not come about.
    pub fn join_spare(&self) -> anyhow::Result<Duration> {
        let number = self.spare.context("there is no spare node")?;
        let token = self.cluster.ctl_ok(&["cluster", "join-token", "-q", "manager"]);
        let begin = Instant::now();
        self.cluster.join(number, token.trim());
        self.cluster.wait_voting(usize::from(self.count) + 1);
        let took = begin.elapsed();
        self.cluster.ctl_ok(&["node", "update", "--availability", "drain", &format!("node-{number}")]);
        Ok(took)
    }

    /// As the daemons' logs tell; 0: none was slow enough to be told.
    ///
    /// # Errors
    /// A log cannot be read.
    pub fn slowest_batch_ms(&self) -> anyhow::Result<u64> {
        let mut slowest = 0;
        for number in self.with_joined() {
            let log = std::fs::read_to_string(self.cluster.log(number))?;
            let slow = log.lines().filter(|line| line.contains("a batch of the core was slow"));
            let took = slow.filter_map(|line| line.split_once("took.ms=")?.1.split(' ').next()?.parse().ok());
            slowest = took.fold(slowest, u64::max);
        }
        Ok(slowest)
    }

    /// Where a manager's TLS port is.
    pub fn address(&self, number: u16) -> String {
        self.cluster.endpoint(number, 2377).to_string()
    }

    pub fn addresses(&self) -> Vec<String> {
        self.all().map(|number| self.address(number)).collect()
    }

    pub async fn operator(&self, number: u16) -> anyhow::Result<Operator> {
        Operator::connect(&self.cluster.socket(number)).await
    }

    /// The manager that leads.
    pub async fn leader(&self) -> anyhow::Result<u16> {
        for _ in 0..ATTEMPTS {
            for number in self.all() {
                let Ok(operator) = self.operator(number).await else { continue };
                let mut nodes = NodesClient::new(operator.channel()).max_decoding_message_size(64 << 20);
                let Ok(list) = nodes.list(v1::ListNodesRequest {}).await else { continue };
                let leader = list.into_inner().nodes.into_iter().find(|node| node.leader);
                let name = leader.and_then(|node| node.engine).map(|engine| engine.hostname);
                if let Some(number) = name.and_then(|name| name.strip_prefix("node-")?.parse().ok()) {
                    return Ok(number);
                }
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("there is no leader")
    }

    /// A connection over mutual TLS with a manager's certificate, as managers have among each other.
    pub async fn dial(&self, from: u16, to: u16) -> anyhow::Result<Calls> {
        let data = self.cluster.data(from);
        let Opened::Unlocked(keyring) = Keyring::open(&data.join("manager"))? else {
            bail!("the manager's disk is locked");
        };
        let unwrap = |wrapped: &str| keyring.unwrap_private_key(wrapped);
        let credentials = Credentials::load_wrapped(&data.join("node.pem"), unwrap)?;
        let dialler = Dialler::new(&credentials.context("a manager has credentials")?)?;
        let address = self.address(to);
        Calls::begin(dialler.stream(&address).await?, &address).await
    }

    pub fn usage(&self, number: u16) -> anyhow::Result<Usage> {
        Usage::of(self.cluster.daemon_pid(number))
    }

    /// Appends to a manager's log. A sync follows each, or several that waited for the one before.
    pub fn log_writes(&self, number: u16) -> anyhow::Result<u64> {
        Ok(process::written(self.cluster.daemon_pid(number), LOG_THREAD)?.calls)
    }

    /// Bytes of the records in a manager's log since it was started, without the zeros that segments are made with.
    pub fn log_bytes(&self, number: u16) -> anyhow::Result<u64> {
        let written = process::written(self.cluster.daemon_pid(number), LOG_THREAD)?.bytes;
        let mut segments = 0;
        for entry in std::fs::read_dir(self.cluster.data(number).join("manager/log"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            segments = segments.max(name.trim_end_matches(".log").parse().unwrap_or(0));
        }
        // The first one is made before the thread runs.
        Ok(written.saturating_sub(SEGMENT_BYTES * u64::saturating_sub(segments, 1)))
    }
}
