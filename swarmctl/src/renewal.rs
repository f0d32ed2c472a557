//! The operator's certificate is renewed beside a command: once half of its life is over, and while the cluster replaces
//! its root, so that the context believes the new one in time. Nobody is told: a renewal that fails is tried again by
//! the next command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use swarm_pki::{OperatorCredentials, current_roots, renew_operator};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::client::Client;
use crate::context::{Files, Remote};

/// How long a command that is done waits for a renewal.
const PATIENCE: Duration = Duration::from_secs(2);

/// A renewal that may be under way.
pub struct Renewal {
    task: Option<JoinHandle<()>>,
    /// Whether it was found to be needed.
    due: Arc<AtomicBool>,
}

impl Renewal {
    pub fn start(client: &Client, remote: Option<&Remote>) -> Self {
        let due = Arc::new(AtomicBool::new(false));
        let task = remote.map(|remote| {
            let (name, text) = (remote.name.clone(), remote.credentials.to_text());
            tokio::spawn(renew(name, text, client.channel(), Arc::clone(&due)))
        });
        Self { task, due }
    }

    /// Whether there was one.
    pub async fn finish(self) -> bool {
        let Some(task) = self.task else { return false };
        if !self.due.load(Ordering::Relaxed) {
            task.abort();
            return false;
        }
        tokio::time::timeout(PATIENCE, task).await.is_ok()
    }
}

async fn renew(name: String, text: String, channel: Channel, due: Arc<AtomicBool>) {
    let Ok(old) = OperatorCredentials::parse(&text) else { return };
    let replaced = async {
        let roots = current_roots(channel.clone()).await;
        roots.is_some_and(|roots| roots.trim() != old.roots_pem().trim())
    };
    if !is_half_over(&old, SystemTime::now()) && !replaced.await {
        return;
    }
    due.store(true, Ordering::Relaxed);
    if let Ok(renewed) = renew_operator(&old, channel.clone()).await
        && let Ok(files) = Files::open()
    {
        let _ = files.save(&name, &renewed.managers, &renewed.credentials);
    }
}

fn is_half_over(credentials: &OperatorCredentials, now: SystemTime) -> bool {
    let Ok((from, until)) = credentials.validity() else { return false };
    let life = until.duration_since(from).unwrap_or_default();
    now > from + life / 2
}
