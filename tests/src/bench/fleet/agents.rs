//! The agents: each with its own credentials and connection, none with containers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use swarm_agent::{Agent, AgentConfig, Delays, FakeExecutor, Managers, Parallelism};
use swarm_model::{EngineDescription, Platform, Resources};
use swarm_pki::{Dialler, JoinRequest, JoinToken, join};

/// Nodes that join at the same time.
const JOINING: usize = 32;
/// Data addresses of the nodes; nothing is ever sent there.
const FIRST_DATA_ADDRESS: u32 = Ipv4Addr::new(198, 18, 0, 1).to_bits();

/// A node's agent, and what it believes to be its node.
pub struct Fleet {
    nodes: Vec<(Agent, FakeExecutor)>,
}

impl Fleet {
    /// Nodes join one cluster as a worker does: with a token, each for a certificate of its own.
    pub async fn join(token: &str, managers: &[String], count: u16) -> anyhow::Result<Self> {
        let token: JoinToken = token.parse()?;
        let joins = (0..count).map(|number| join_one(token, managers.to_vec(), number));
        let nodes = stream::iter(joins).buffer_unordered(JOINING).try_collect().await?;
        Ok(Self { nodes })
    }

    /// How many containers each node runs.
    pub fn running(&self) -> Vec<usize> {
        self.nodes.iter().map(|(_, node)| node.running().len()).collect()
    }

    pub async fn stop(self) {
        for (agent, _) in self.nodes {
            agent.stop().await;
        }
    }
}

async fn join_one(
    token: JoinToken,
    managers: Vec<String>,
    number: u16,
) -> anyhow::Result<(Agent, FakeExecutor)> {
    let engine = engine(&format!("agent-{number}"), (FIRST_DATA_ADDRESS + u32::from(number)).into());
    let request = JoinRequest {
        token,
        managers: managers.clone(),
        hostname: engine.hostname.clone(),
        data_address: engine.data_address.to_string(),
        manager_address: String::new(),
    };
    let joined = join(&request).await?;
    let identity = joined.credentials.identity();
    let config = AgentConfig {
        cluster: identity.cluster,
        node: identity.node,
        engine,
        managers,
        parallelism: Parallelism::default(),
    };
    let dialled = Managers::from(Dialler::new(&joined.credentials)?);
    let node = FakeExecutor::new(Delays::default());
    let executor = node.clone();
    let agent = Agent::start(config, dialled, move |answers| {
        let recovered = executor.attach(answers);
        Ok::<_, Infallible>((Arc::new(executor), recovered))
    });
    match agent {
        Ok(agent) => Ok((agent, node)),
        Err(never) => match never {},
    }
}

/// A machine of 64 CPUs and 256 GiB.
pub fn engine(hostname: &str, data_address: Ipv4Addr) -> EngineDescription {
    EngineDescription {
        hostname: hostname.to_owned(),
        platform: Platform { os: "linux".to_owned(), arch: Platform::canonical_arch(std::env::consts::ARCH) },
        resources: Resources { cpu_nanos: 64_000_000_000, memory_bytes: 256 << 30 },
        labels: BTreeMap::new(),
        data_address,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
