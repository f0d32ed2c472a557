//! `version`.

use std::collections::BTreeMap;

use swarm_proto::v1;

use crate::client::Client;
use crate::failure::Result;
use crate::output::{Format, Row, print};

/// Shows both versions; a node that is not reached is said so, and is no error.
pub async fn show(endpoint: &str, format: &Format) -> Result<()> {
    let node = match Client::connect(endpoint).await {
        Ok(client) => {
            let status = client.local().status(v1::LocalStatusRequest {}).await?.into_inner();
            BTreeMap::from([("version", status.version), ("hostname", status.hostname)])
        }
        Err(_) => BTreeMap::from([("version", "not reached".to_owned()), ("hostname", endpoint.to_owned())]),
    };
    let row = |component: &str, version: &str, at: &str| {
        Row::default()
            .column("COMPONENT", "Component", component)
            .column("VERSION", "Version", version)
            .column("AT", "At", at)
    };
    let rows = [
        row("swarmctl", env!("CARGO_PKG_VERSION"), "this machine"),
        row("swarmd", &node["version"], &node["hostname"]),
    ];
    print(&rows, format, &[])
}
