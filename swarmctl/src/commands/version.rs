//! `version`.

use swarm_proto::v1;

use crate::client::Client;
use crate::context::Target;
use crate::failure::Result;
use crate::output::{Format, Row, print};

/// Shows both versions; a node that is not reached is said so, and is no error.
pub async fn show(target: Result<Target>, format: &Format) -> Result<()> {
    let node = match at(target).await {
        Ok((version, hostname)) => [version, hostname],
        Err(failure) => ["not reached".to_owned(), failure.to_string().replace('\n', " ")],
    };
    let row = |component: &str, version: &str, at: &str| {
        Row::default()
            .column("COMPONENT", "Component", component)
            .column("VERSION", "Version", version)
            .column("AT", "At", at)
    };
    let rows =
        [row("swarmctl", env!("CARGO_PKG_VERSION"), "this machine"), row("swarmd", &node[0], &node[1])];
    print(&rows, format, &[])
}

/// Version and host name of the node that is talked to; of managers elsewhere, the one that leads.
async fn at(target: Result<Target>) -> Result<(String, String)> {
    let client = Client::connect(&target?).await?;
    if client.is_remote() {
        let nodes = client.nodes().list(v1::ListNodesRequest {}).await?.into_inner().nodes;
        let leader = nodes.into_iter().find(|node| node.leader).and_then(|node| node.engine);
        let leader = leader.unwrap_or_default();
        return Ok((leader.version, leader.hostname));
    }
    let status = client.local("version")?.status(v1::LocalStatusRequest {}).await?.into_inner();
    Ok((status.version, status.hostname))
}
