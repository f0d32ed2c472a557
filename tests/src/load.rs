//! Write load on a cluster, and the proof that nothing which was acknowledged is lost.
//!
//! Each writer raises a label of a service of its own, over the managers' local sockets, so that most writes are forwarded
//! by followers. It knows what was acknowledged to it last and what it tried last: whatever it reads must lie between.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use swarm_proto::v1;
use swarm_proto::v1::services_client::ServicesClient;
use tonic::transport::Channel;

use crate::bench::operator::{Operator, service_spec};

/// The label that every write raises.
const LABEL: &str = "write";
/// For a cluster to answer at the end.
const LIMIT: Duration = Duration::from_secs(60);
/// One call: a manager that hangs must not hold its client for ever.
const CALL: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_millis(5);

/// What all writers together did.
#[derive(Debug, Default)]
pub struct Tally {
    pub acknowledged: AtomicU64,
    /// Writes that were acknowledged and not there when the service was read.
    pub lost: AtomicU64,
    /// Reads of a value that nobody wrote.
    pub invented: AtomicU64,
    pub stop: AtomicBool,
}

/// One client with a service of its own.
#[derive(Debug)]
pub struct Writer {
    name: String,
    sockets: Vec<PathBuf>,
    /// Which socket is next.
    at: usize,
    client: Option<ServicesClient<Channel>>,
    /// As last read or written.
    service: v1::Service,
    /// Raised by the last write that was acknowledged to this.
    acknowledged: u64,
    tried: u64,
}

impl Writer {
    /// Writes to the first of the sockets that works, from the `at`th on.
    pub fn new(name: &str, sockets: Vec<PathBuf>, at: usize) -> Self {
        let (name, service) = (name.to_owned(), v1::Service::default());
        Self { name, sockets, at, client: None, service, acknowledged: 0, tried: 0 }
    }

    /// # Errors
    /// The service cannot be read within a minute of the end.
    pub async fn write_until_told(mut self, tally: Arc<Tally>) -> anyhow::Result<()> {
        while !tally.stop.load(Ordering::Relaxed) {
            match self.write().await {
                Ok(()) => {
                    tally.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => self.look(&tally).await,
            }
        }
        let end = Instant::now() + LIMIT;
        while let Err(error) = self.find().await {
            ensure!(Instant::now() < end, "{} cannot be read at the end: {error:#}", self.name);
            tokio::time::sleep(POLL).await;
        }
        self.check(&tally);
        Ok(())
    }

    /// What the failed write left, read at another manager: what was acknowledged before it must be there.
    async fn look(&mut self, tally: &Tally) {
        self.client = None;
        match self.find().await {
            Ok(()) => self.check(tally),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }

    fn check(&self, tally: &Tally) {
        let value = self.value();
        tally.lost.fetch_add(self.acknowledged.saturating_sub(value), Ordering::Relaxed);
        tally.invented.fetch_add(value.saturating_sub(self.tried), Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        let label = self.service.spec.as_ref().and_then(|spec| spec.labels.get(LABEL));
        label.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    async fn client(&mut self) -> anyhow::Result<ServicesClient<Channel>> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let socket = &self.sockets[self.at % self.sockets.len()];
        self.at += 1;
        let client = ServicesClient::new(Operator::connect(socket).await?.channel());
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Reads the service; makes it the first time.
    ///
    /// # Errors
    /// The manager refuses, or does not answer in time.
    pub async fn find(&mut self) -> anyhow::Result<()> {
        let mut client = self.client().await?;
        let found = client.get(v1::GetServiceRequest { service: self.name.clone() });
        match in_time(found).await {
            Ok(found) => self.service = found,
            Err(status) if status.code() == tonic::Code::NotFound && self.tried == 0 => {
                let image =
                    v1::ImageRef { name: "shop/web:1".to_owned(), no_resolve: true, ..Default::default() };
                let spec = Some(service_spec(&self.name, image, 0));
                let request = v1::CreateServiceRequest { spec, request_id: String::new() };
                let created = in_time(client.create(request)).await?.service;
                self.service = created.context("no service in the answer")?;
            }
            Err(status) => {
                self.client = None;
                return Err(status.into());
            }
        }
        Ok(())
    }

    /// Raises the label by one.
    ///
    /// # Errors
    /// The manager refuses, or does not answer in time: it may have been written or not.
    pub async fn write(&mut self) -> anyhow::Result<()> {
        if self.service.id.is_empty() {
            self.find().await?;
        }
        let next = self.value() + 1;
        let mut spec = self.service.spec.clone().context("a service has a spec")?;
        spec.labels.insert(LABEL.to_owned(), next.to_string());
        let version = self.service.meta.map_or(0, |meta| meta.version);
        let update =
            v1::UpdateServiceRequest { service_id: self.service.id.clone(), version, spec: Some(spec) };
        self.tried = self.tried.max(next);
        let mut client = self.client().await?;
        let updated = in_time(client.update(update)).await?.service;
        self.service = updated.context("no service in the answer")?;
        self.acknowledged = next;
        Ok(())
    }
}

async fn in_time<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    match tokio::time::timeout(CALL, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(tonic::Status::deadline_exceeded(format!("no answer for {} s", CALL.as_secs()))),
    }
}
