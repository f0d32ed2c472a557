//! Writes from the request to the acknowledgement, synced to a real disk.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use swarm_manager::engine::Engine;
use swarm_manager::keys::DataKey;
use swarm_manager_core::api::{CreateCluster, NewNode, Request, Response};
use swarm_manager_core::door::Config;
use swarm_model::{
    ClusterId, EngineDescription, Image, JoinSecrets, NodeId, NodeRole, Platform, Resources, Timestamp,
};

use crate::bench::figures::Times;

pub struct Measured {
    pub times: Times,
    pub whole: Duration,
}

/// `clients` write `writes` objects of about 256 bytes, each client one after the other.
///
/// # Errors
/// A write is refused, or what was acknowledged is not there after a restart.
pub fn measure(root: &Path, clients: u32, writes: u32) -> anyhow::Result<Measured> {
    let directory = tempfile::tempdir_in(root).context("make a directory to measure in")?;
    let key = DataKey::generate();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let engine = start(directory.path(), &key)?;
        engine.request(Request::CreateCluster(Box::new(cluster()))).await?;
        let each = writes.div_ceil(clients);
        let started = Instant::now();
        let running: Vec<_> =
            (0..clients).map(|client| tokio::spawn(write(engine.clone(), client, each))).collect();
        let mut times = Vec::new();
        for client in running {
            times.extend(client.await??);
        }
        let whole = started.elapsed();
        engine.stop().await;
        check(directory.path(), &key, clients, each).await?;
        Ok(Measured { times: Times::of(times).context("nothing was written")?, whole })
    })
}

async fn write(engine: Engine, client: u32, count: u32) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 1..=count {
        let started = Instant::now();
        engine.request(Request::PutImage(image(client, number))).await?;
        times.push(started.elapsed());
    }
    Ok(times)
}

/// Every client's last write is what a restarted manager holds.
async fn check(directory: &Path, key: &DataKey, clients: u32, last: u32) -> anyhow::Result<()> {
    let engine = start(directory, key)?;
    let mut leadership = engine.leadership();
    let leads = |now: &swarm_manager_core::door::Leadership| {
        matches!(now, swarm_manager_core::door::Leadership::Leader { .. })
    };
    leadership.wait_for(leads).await.context("the manager does not lead again")?;
    let Response::Images(images) = engine.request(Request::ListImages).await? else {
        anyhow::bail!("ListImages was answered by something else");
    };
    ensure!(images.len() == clients as usize, "{} objects of {clients} are there", images.len());
    for client in 0..clients {
        let expected = image(client, last);
        let found = images.iter().find(|image| image.name == expected.name);
        ensure!(found.is_some_and(|found| found.digest == expected.digest), "an acknowledged write is gone");
    }
    engine.stop().await;
    Ok(())
}

fn start(directory: &Path, key: &DataKey) -> anyhow::Result<Engine> {
    let config = Config::new(NodeId::from_u128(1), 1, [7; 32]);
    Ok(Engine::start(config, directory, key, Box::new(|_, _| {}))?)
}

fn image(client: u32, number: u32) -> Image {
    Image {
        name: format!("registry.example/team/service-{client:05}:stable"),
        version: 0,
        created_at: Timestamp::ZERO,
        digest: format!("sha256:{client:032x}{number:032x}"),
        manifest_bytes: 1_000,
        total_bytes: 100_000_000,
        platform: platform(),
    }
}

fn platform() -> Platform {
    Platform { os: "linux".to_owned(), arch: "amd64".to_owned() }
}

fn cluster() -> CreateCluster {
    let engine = EngineDescription {
        hostname: "node-1".to_owned(),
        platform: platform(),
        resources: Resources::default(),
        labels: std::collections::BTreeMap::new(),
        data_address: std::net::Ipv4Addr::LOCALHOST,
        version: "bench".to_owned(),
    };
    CreateCluster {
        id: ClusterId::from_u128(1),
        root_certificate: String::new(),
        root_key: String::new(),
        join: JoinSecrets { worker: String::new(), manager: String::new() },
        gateway_pool: "10.192.0.0/10".parse().expect("a network"),
        heartbeat_ms: 1_000,
        node: NewNode { id: NodeId::from_u128(1), role: NodeRole::Manager, engine, manager_address: None },
    }
}
