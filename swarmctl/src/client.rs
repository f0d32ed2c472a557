//! The connection to a manager: one channel, lent to the generated clients. With a context, it is a connection to
//! whichever manager answers, made anew with the next call after it was lost.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use swarm_pki::OperatorDialler;
use swarm_proto::v1;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::context::{Files, Remote, Target};
use crate::failure::{Code, Failure, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call is made again. Managers that lost their leader have another one within a second or two.
const NOBODY_ANSWERS: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);
/// Lists of a large cluster are one message.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

#[derive(Clone)]
pub struct Client {
    channel: Channel,
    /// With a context of managers: its name, and who dials them.
    remote: Option<(String, OperatorDialler)>,
}

impl Client {
    /// # Errors
    /// Unreachable, with what to start, or each address that was tried and why it was not reached.
    pub async fn connect(target: &Target) -> Result<Self> {
        match target {
            Target::Socket(path) => Self::local_socket(path).await,
            Target::Managers(remote) => Self::managers(remote).await,
        }
    }

    async fn local_socket(path: &Path) -> Result<Self> {
        let socket = path.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://swarmd.local")
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_with_connector(connector)
            .await
            .map_err(|error| unreachable_failure(path, &error))?;
        Ok(Self { channel, remote: None })
    }

    async fn managers(remote: &Remote) -> Result<Self> {
        let Remote { name, managers, credentials } = remote;
        let unusable = |why: String| {
            Failure::failed(format!("context {name:?} cannot be used"))
                .why(why)
                .next("an admin makes a new token with: swarmctl cluster operator-token")
        };
        let until = credentials.valid_until().map_err(|error| unusable(error.to_string()))?;
        if until < std::time::SystemTime::now() {
            let failure =
                Failure::new(Code::NotAllowed, format!("the certificate of context {name:?} has expired"));
            return Err(failure.next("an admin makes a new token with: swarmctl cluster operator-token"));
        }
        let dialler = OperatorDialler::new(credentials, managers.clone());
        let dialler = dialler.map_err(|error| unusable(error.to_string()))?;
        let channel = dialler.connect().await.map_err(|error| Failure::unreachable(&error))?;
        Ok(Self { channel, remote: Some((name.clone(), dialler)) })
    }

    /// Whether it talks to managers elsewhere.
    pub fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Makes a call that changes nothing, or may be made twice, until a manager answers: one that dies, or a change of
    /// leader, is waited out.
    ///
    /// # Errors
    /// The answer was another refusal than that nobody answers, or nobody did for long.
    pub async fn persist<T, F: Future<Output = std::result::Result<T, tonic::Status>>>(
        &self,
        call: impl Fn() -> F,
    ) -> std::result::Result<T, tonic::Status> {
        let until = tokio::time::Instant::now() + NOBODY_ANSWERS;
        loop {
            match call().await {
                Err(status) if is_transient(&status) && tokio::time::Instant::now() < until => {
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Tries the manager first next time that answered this time. That it cannot be noted fails no command.
    pub fn remember(&self, known: &[String]) {
        let Some((name, dialler)) = &self.remote else { return };
        let managers = dialler.managers();
        if managers != known
            && let Ok(files) = Files::open()
        {
            let _ = files.save_managers(name, &managers);
        }
    }

    pub fn services(&self) -> v1::services_client::ServicesClient<Channel> {
        v1::services_client::ServicesClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn tasks(&self) -> v1::tasks_client::TasksClient<Channel> {
        v1::tasks_client::TasksClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn nodes(&self) -> v1::nodes_client::NodesClient<Channel> {
        v1::nodes_client::NodesClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn clusters(&self) -> v1::clusters_client::ClustersClient<Channel> {
        v1::clusters_client::ClustersClient::new(self.channel())
    }

    pub fn operators(&self) -> v1::operators_client::OperatorsClient<Channel> {
        v1::operators_client::OperatorsClient::new(self.channel())
    }

    pub fn images(&self) -> v1::images_client::ImagesClient<Channel> {
        v1::images_client::ImagesClient::new(self.channel())
    }

    pub fn watch(&self) -> v1::watch_client::WatchClient<Channel> {
        v1::watch_client::WatchClient::new(self.channel())
    }

    pub fn events(&self) -> v1::events_client::EventsClient<Channel> {
        v1::events_client::EventsClient::new(self.channel())
    }

    pub fn logs(&self) -> v1::logs_client::LogsClient<Channel> {
        v1::logs_client::LogsClient::new(self.channel())
    }

    /// What a node says about itself. Only the node's own socket has it.
    ///
    /// # Errors
    /// The command was sent elsewhere.
    pub fn local(&self, command: &str) -> Result<v1::local_client::LocalClient<Channel>> {
        match &self.remote {
            None => Ok(v1::local_client::LocalClient::new(self.channel())),
            Some((name, _)) => {
                Err(Failure::usage(format!("{command} is about one host, not about the cluster"))
                    .why(format!("context {name:?} talks to managers elsewhere"))
                    .next(format!("on that host, as root: swarmctl --context default {command}")))
            }
        }
    }
}

/// Whether another manager, or the same one in a moment, may answer.
pub fn is_transient(status: &tonic::Status) -> bool {
    // A connection that broke in the middle is told as an unknown or cancelled call.
    let broken = status.code() == tonic::Code::Unknown && std::error::Error::source(status).is_some();
    status.code() == tonic::Code::Unavailable || status.code() == tonic::Code::Cancelled || broken
}

fn unreachable_failure(path: &Path, error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let failure = Failure::new(Code::Unreachable, format!("cannot reach swarmd at {}", path.display()))
        .why(cause.to_string());
    match cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::PermissionDenied) => failure.next(
            "run as root: the local socket is root's only; others need a context: swarmctl context create",
        ),
        _ => failure.next("start it (systemctl start swarmd), or name a cluster: swarmctl --context dev …"),
    }
}
