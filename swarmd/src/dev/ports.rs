//! Published ports of the dev cluster on this machine's own loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use swarm_model::Protocol;
use swarm_network::DevNetwork;
use swarm_proto::v1;
use tokio_stream::StreamExt;
use tracing::warn;

use super::nodes::connect;

const RETRY: Duration = Duration::from_millis(200);

/// Follows the services for ever; while the manager is away the ports stay as they are.
pub async fn follow(socket: &Path, network: &DevNetwork) {
    loop {
        if let Err(status) = watch(socket, network).await {
            warn!(
                reason = status.message(),
                "published ports are not followed until the manager answers again"
            );
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn watch(socket: &Path, network: &DevNetwork) -> Result<(), tonic::Status> {
    use v1::watch_event::Event;
    let request = v1::WatchRequest { services: true, ..Default::default() };
    let mut client = v1::watch_client::WatchClient::new(connect(socket).await);
    let mut events = client.watch(request).await?.into_inner();
    let mut services: BTreeMap<String, BTreeSet<(Protocol, u16)>> = BTreeMap::new();
    let mut synced = false;
    while let Some(event) = events.next().await {
        match event?.event {
            Some(Event::Service(service)) => {
                services.insert(service.id, service.ports.iter().filter_map(ingress).collect());
            }
            Some(Event::RemovedServiceId(id)) => {
                services.remove(&id);
            }
            Some(Event::Synced(_)) => synced = true,
            Some(Event::Task(_) | Event::Node(_) | Event::RemovedTaskId(_) | Event::RemovedNodeId(_))
            | None => continue,
        }
        if synced {
            let ports = services.values().flatten().copied().collect();
            if let Err(error) = network.publish(&ports) {
                warn!(%error, "published ports do not answer on this machine's loopback");
            }
        }
    }
    Ok(())
}

fn ingress(port: &v1::PortSpec) -> Option<(Protocol, u16)> {
    let protocol = match port.protocol() {
        v1::port_spec::Protocol::Unspecified | v1::port_spec::Protocol::Tcp => Protocol::Tcp,
        v1::port_spec::Protocol::Udp => Protocol::Udp,
    };
    let published = u16::try_from(port.published).ok().filter(|port| *port != 0)?;
    (port.mode() != v1::port_spec::Mode::Host).then_some((protocol, published))
}
