//! The daemon's life: bring the node back into its cluster, listen at the local socket, stop in good order.

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::{error, info};

use crate::cli::NodeArgs;
use crate::config::Config;
use crate::door::{self, LocalDoor, ManagerDoor};
use crate::node::{LocalService, Node};
use crate::systemd;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The node cannot start: its socket, its disk, or its state. Running containers are not touched.
pub async fn run(args: NodeArgs) -> anyhow::Result<()> {
    let config = Config::load(args)?;
    anyhow::ensure!(rustix::process::geteuid().is_root(), "swarmd runs containers and needs root");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = door::bind(&config.socket)?;
    let socket = config.socket.clone();
    let managers = ManagerDoor::default();
    let node = Arc::new(
        Node::open(config, managers.clone()).await.context("this node cannot come back into its cluster")?,
    );

    let local = LocalDoor {
        local: Routes::new(LocalService::server(Arc::clone(&node))),
        manager: managers,
        local_prefix: LocalService::PREFIX,
    };
    let connections = swarm_pki::accept_local(listener);
    let server = tokio::spawn(Server::builder().serve_with_incoming(local, connections));
    info!(socket = %socket.display(), "swarmd is ready");
    systemd::ready();

    let roles = {
        let node = Arc::clone(&node);
        tokio::spawn(
            async move { tokio::join!(node.follow_news(), node.follow_removal(), node.stay_certified()) },
        )
    };
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failure = node.failed() => Err(failure),
    };
    systemd::stopping();
    if let Err(error) = &outcome {
        error!(%error, "swarmd stops");
    }
    roles.abort();
    node.stop().await;
    server.abort();
    let _ = std::fs::remove_file(&socket);
    outcome
}
