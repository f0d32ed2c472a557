//! An operator of a cluster: makes services, and sees when their tasks run.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use swarm_proto::v1;
use swarm_proto::v1::watch_event::Event;
use tokio::net::UnixStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

/// For anything to happen that takes seconds at worst; a cluster that needs longer is stuck.
const LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);
/// Lists of a large cluster are one message.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

#[derive(Debug, Clone)]
pub struct Operator {
    channel: Channel,
}

/// A service whose tasks all run.
#[derive(Debug)]
pub struct Service {
    id: String,
    replicas: u32,
    /// From the call until the last task was seen to run.
    pub took: Duration,
    watch: Streaming<v1::WatchEvent>,
}

impl Operator {
    /// Through the local socket of a manager.
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://manager.local").connect_with_connector(connector).await;
        let channel = channel.with_context(|| format!("cannot connect to {}", socket.display()))?;
        Ok(Self { channel })
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Log entries that the leader has applied.
    pub async fn log_entries(&self) -> anyhow::Result<u64> {
        Ok(self.cluster().await?.raft_applied)
    }

    /// Rises with each election.
    pub async fn term(&self) -> anyhow::Result<u64> {
        Ok(self.cluster().await?.raft_term)
    }

    async fn cluster(&self) -> anyhow::Result<v1::Cluster> {
        let mut clusters = v1::clusters_client::ClustersClient::new(self.channel.clone());
        Ok(clusters.get(v1::GetClusterRequest {}).await?.into_inner())
    }

    pub async fn worker_token(&self) -> anyhow::Result<String> {
        let mut clusters = v1::clusters_client::ClustersClient::new(self.channel.clone());
        let request = v1::GetJoinTokenRequest { role: v1::NodeRole::Worker.into() };
        Ok(clusters.get_join_token(request).await?.into_inner().token)
    }

    /// Waits until so many nodes are ready.
    pub async fn wait_for_nodes(&self, count: usize) -> anyhow::Result<()> {
        let mut nodes = v1::nodes_client::NodesClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let end = Instant::now() + LIMIT;
        loop {
            let asked = Instant::now();
            let list = nodes.list(v1::ListNodesRequest {}).await?.into_inner().nodes;
            let ready = list.iter().filter(|node| node.state() == v1::NodeState::Ready).count();
            if ready >= count {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("only {ready} of {count} nodes are ready");
            }
            // A list of thousands takes long enough to be part of what is measured.
            tokio::time::sleep(POLL.max(asked.elapsed() * 10)).await;
        }
    }

    /// Makes a service and waits until all of its tasks run.
    ///
    /// # Errors
    /// It is refused, or its tasks do not come up.
    pub async fn run(&self, spec: v1::ServiceSpec, replicas: u32) -> anyhow::Result<Service> {
        let watch = self.watch_services().await?;
        let begin = Instant::now();
        let mut services = v1::services_client::ServicesClient::new(self.channel.clone());
        let request = v1::CreateServiceRequest { spec: Some(spec), request_id: String::new() };
        let created =
            services.create(request).await?.into_inner().service.context("no service in the answer")?;
        let mut service = Service { id: created.id, replicas, took: Duration::ZERO, watch };
        service.wait(|running| running >= replicas).await?;
        service.took = begin.elapsed();
        Ok(service)
    }

    /// Changes how many tasks a service has and waits until so many run; only upwards.
    ///
    /// # Errors
    /// It is refused, or its tasks do not come up.
    pub async fn scale(&self, service: &mut Service, replicas: u32) -> anyhow::Result<Duration> {
        let mut services = v1::services_client::ServicesClient::new(self.channel.clone());
        let current = services.get(v1::GetServiceRequest { service: service.id.clone() }).await?.into_inner();
        let mut spec = current.spec.context("a service has a spec")?;
        let mode = v1::service_mode::Mode::Replicated(v1::service_mode::Replicated { replicas });
        spec.mode = Some(v1::ServiceMode { mode: Some(mode) });
        let version = current.meta.map_or(0, |meta| meta.version);
        let begin = Instant::now();
        let update = v1::UpdateServiceRequest { service_id: current.id, version, spec: Some(spec) };
        services.update(update).await?;
        service.replicas = replicas;
        service.wait(|running| running >= replicas).await?;
        Ok(begin.elapsed())
    }

    /// Proves that no task of the service ended on the way: one that did was replaced, and its replacement counted.
    ///
    /// # Errors
    /// One ended; the text has its reason.
    pub async fn check_none_ended(&self, service: &Service) -> anyhow::Result<()> {
        let mut tasks = v1::tasks_client::TasksClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let request =
            v1::ListTasksRequest { service_id: service.id.clone(), ..v1::ListTasksRequest::default() };
        for task in tasks.list(request).await?.into_inner().tasks {
            let status = task.status.unwrap_or_default();
            if status.state() > v1::TaskState::Running {
                bail!("task {}.{} is {:?}: {}", task.service_name, task.slot, status.state(), status.error);
            }
        }
        Ok(())
    }

    /// Waits until the service lacks tasks, and has them all again.
    ///
    /// # Errors
    /// Nothing happens for minutes.
    pub async fn replaced(&self, service: &mut Service) -> anyhow::Result<()> {
        let replicas = service.replicas;
        service.wait(|running| running < replicas).await?;
        service.wait(|running| running >= replicas).await
    }

    /// Removes a service and waits until no task is left in the cluster.
    ///
    /// # Errors
    /// It is refused, or tasks stay for minutes.
    pub async fn remove(&self, service: Service) -> anyhow::Result<()> {
        let mut services = v1::services_client::ServicesClient::new(self.channel.clone());
        services.remove(v1::RemoveServiceRequest { service_id: service.id }).await?;
        let end = Instant::now() + LIMIT;
        loop {
            match self.cluster().await?.tasks {
                0 => return Ok(()),
                left if Instant::now() > end => bail!("{left} tasks are left"),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Begins where everything that exists has been told. Tasks are not told one by one: a hundred thousand of them would
    /// be more work than what is measured.
    async fn watch_services(&self) -> anyhow::Result<Streaming<v1::WatchEvent>> {
        let mut client = v1::watch_client::WatchClient::new(self.channel.clone());
        let request = v1::WatchRequest { services: true, ..v1::WatchRequest::default() };
        let mut watch = client.watch(request).await?.into_inner();
        while !matches!(next(&mut watch).await?, Event::Synced(_)) {}
        Ok(watch)
    }
}

impl Service {
    /// Until as many of its tasks run as is asked for.
    async fn wait(&mut self, enough: impl Fn(u32) -> bool) -> anyhow::Result<()> {
        loop {
            match next(&mut self.watch).await? {
                Event::Service(service) if service.id == self.id && enough(service.running_tasks) => {
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}

async fn next(watch: &mut Streaming<v1::WatchEvent>) -> anyhow::Result<Event> {
    let message =
        tokio::time::timeout(LIMIT, watch.message()).await.context("nothing happens in the cluster")??;
    message.and_then(|message| message.event).context("the watch ended")
}

/// A replicated service with nothing special.
pub fn service_spec(name: &str, image: v1::ImageRef, replicas: u32) -> v1::ServiceSpec {
    // As process 1 a program without handlers sleeps through its stop signal, and how long that is allowed is not
    // measured here.
    let container =
        v1::ContainerSpec { image: Some(image), stop_grace_micros: Some(0), ..v1::ContainerSpec::default() };
    let mode = v1::service_mode::Mode::Replicated(v1::service_mode::Replicated { replicas });
    v1::ServiceSpec {
        name: name.to_owned(),
        mode: Some(v1::ServiceMode { mode: Some(mode) }),
        task: Some(v1::TaskSpec { container: Some(container), ..v1::TaskSpec::default() }),
        ..v1::ServiceSpec::default()
    }
}
