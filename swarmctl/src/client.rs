//! The connection to a manager: one channel, lent to the generated clients.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use swarm_proto::v1;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::failure::{Code, Failure, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Lists of a large cluster are one message.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects to `unix:///path`.
    ///
    /// # Errors
    /// Unreachable, with what to start; other schemes are refused.
    pub async fn connect(endpoint: &str) -> Result<Self> {
        let path = endpoint.strip_prefix("unix://").map(PathBuf::from).ok_or_else(|| {
            Failure::usage(format!("{endpoint:?} is not an endpoint"))
                .why("this version talks to the local socket of a node only: unix:///path")
        })?;
        let shown = path.display().to_string();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://swarmd.local")
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_with_connector(connector)
            .await
            .map_err(|error| unreachable_failure(&shown, &error))?;
        Ok(Self { channel })
    }

    pub fn services(&self) -> v1::services_client::ServicesClient<Channel> {
        v1::services_client::ServicesClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn tasks(&self) -> v1::tasks_client::TasksClient<Channel> {
        v1::tasks_client::TasksClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn nodes(&self) -> v1::nodes_client::NodesClient<Channel> {
        v1::nodes_client::NodesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn clusters(&self) -> v1::clusters_client::ClustersClient<Channel> {
        v1::clusters_client::ClustersClient::new(self.channel.clone())
    }

    pub fn images(&self) -> v1::images_client::ImagesClient<Channel> {
        v1::images_client::ImagesClient::new(self.channel.clone())
    }

    pub fn watch(&self) -> v1::watch_client::WatchClient<Channel> {
        v1::watch_client::WatchClient::new(self.channel.clone())
    }

    pub fn logs(&self) -> v1::logs_client::LogsClient<Channel> {
        v1::logs_client::LogsClient::new(self.channel.clone())
    }

    pub fn local(&self) -> v1::local_client::LocalClient<Channel> {
        v1::local_client::LocalClient::new(self.channel.clone())
    }
}

fn unreachable_failure(path: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let failure =
        Failure::new(Code::Unreachable, format!("cannot reach swarmd at {path}")).why(cause.to_string());
    match cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::PermissionDenied) => {
            failure.next("run as root: the local socket is root's only")
        }
        _ => failure.next("start it (systemctl start swarmd), or name a cluster: swarmctl --context dev …"),
    }
}
