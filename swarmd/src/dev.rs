//! `swarmd dev`: a throw-away cluster of N nodes on this machine, each in a network namespace and a directory of its
//! own. It ends with this process, on any signal, and leaves nothing; what a killed one left is cleaned up by the next.

mod context;
mod nodes;
mod place;
mod ports;

use std::time::{Duration, Instant};

use anyhow::Context;
use swarm_network::DevNetwork;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::DevArgs;
use nodes::Nodes;
use place::Place;

/// How long the nodes may take to remove their containers at the end.
const STOP: Duration = Duration::from_secs(20);

/// Runs until a signal.
///
/// # Errors
/// Not root, a cluster of that name runs already, or a node does not start; nothing is left in each case.
pub async fn run(args: DevArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "a dev cluster runs real containers and needs root: use sudo"
    );
    let mut signals = Signals::listen()?;
    let started = Instant::now();
    let place = Place::take(&args.name)?;
    place.clean_up().context("cannot clean up after an earlier dev cluster")?;
    let network = DevNetwork::create(&args.name, args.nodes).context("cannot make the nodes' networks")?;
    let mut cluster = Cluster { place, network, nodes: Nodes::default() };
    let outcome = tokio::select! {
        outcome = cluster.live(&args, started) => outcome,
        () = signals.any() => Ok(()),
    };
    cluster.end().await.and(outcome)
}

struct Cluster {
    place: Place,
    network: DevNetwork,
    nodes: Nodes,
}

impl Cluster {
    async fn live(&mut self, args: &DevArgs, started: Instant) -> anyhow::Result<()> {
        for number in 1..=args.nodes {
            self.nodes.start(number, &self.network, &self.place)?;
        }
        self.nodes.form_cluster(&self.network, &self.place).await?;
        context::write(&args.name, &self.place.socket(1))?;
        println!(
            "cluster {:?} of {} nodes is ready in {:.1} s; talk to it with: swarmctl --context {} node ls",
            args.name,
            args.nodes,
            started.elapsed().as_secs_f64(),
            args.name,
        );
        let manager = self.place.socket(1);
        tokio::select! {
            () = ports::follow(&manager, &self.network) => Ok(()),
            outcome = self.nodes.watch() => outcome,
        }
    }

    /// Ends everything, as far as it goes, and tells the first thing that did not go.
    async fn end(mut self) -> anyhow::Result<()> {
        let stopped = self.nodes.stop(STOP).await;
        let forgotten = context::remove(self.place.name(), &self.place.socket(1));
        let cleaned = self.place.clean_up();
        let destroyed = self.network.destroy().context("cannot remove the nodes' networks");
        let released = self.place.release();
        stopped.and(forgotten).and(cleaned).and(destroyed).and(released)
    }
}

struct Signals([tokio::signal::unix::Signal; 4]);

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let kinds =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        let [a, b, c, d] = kinds.map(signal);
        Ok(Self([a?, b?, c?, d?]))
    }

    async fn any(&mut self) {
        let [a, b, c, d] = &mut self.0;
        tokio::select! { _ = a.recv() => {}, _ = b.recv() => {}, _ = c.recv() => {}, _ = d.recv() => {} }
    }
}
