//! Messages to the other managers: one connection and one bounded queue each.
//!
//! Raft repairs whatever is lost, so nothing is retried: a message that finds no room or no connection is dropped, and
//! the core is told that the peer was lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use swarm_manager_core::api::{Change, NodeView, Request, Response};
use swarm_model::{Node, NodeId};
use swarm_pki::{DialError, Dialler};
use swarm_proto::v1;
use swarm_proto::v1::raft_client::RaftClient;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;

use crate::engine::{Engine, RaftOut};
use crate::text::chain;

/// Messages that wait for one peer: a heartbeat interval's worth of the fastest leader.
const MAX_QUEUED: usize = 4_096;
/// Losses that are not reported yet. One more says nothing new.
const MAX_LOSSES: usize = 64;
/// Messages to a peer that cannot be reached are dropped for so long before it is dialled again.
const REDIAL_PAUSE: Duration = Duration::from_millis(200);

/// The managers that this one knows. Clones are the same.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

struct Shared {
    dialler: Dialler,
    runtime: tokio::runtime::Handle,
    lost: mpsc::Sender<u64>,
    peers: Mutex<BTreeMap<u64, Peer>>,
}

struct Peer {
    node: NodeId,
    address: String,
    /// While there is a connection, or one is being made.
    queue: Option<mpsc::Sender<v1::RaftMessage>>,
}

/// Why a connection to a peer ended.
#[derive(Debug, thiserror::Error)]
enum LostError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the stream was ended")]
    Stream(#[source] tonic::Status),
}

/// A manager's number among the Raft members: of its node id, so that it is never given twice.
pub fn raft_id(node: NodeId) -> u64 {
    let id = node.as_u128();
    let folded = (id >> 64 ^ id) & u128::from(u64::MAX);
    u64::try_from(folded).expect("masked to 64 bits").max(1)
}

impl Peers {
    /// Must be called within a tokio runtime. What is received holds the peers that were lost, for [`Self::follow`].
    pub fn new(dialler: Dialler) -> (Self, mpsc::Receiver<u64>) {
        let (lost, losses) = mpsc::channel(MAX_LOSSES);
        let runtime = tokio::runtime::Handle::current();
        (Self(Arc::new(Shared { dialler, runtime, lost, peers: Mutex::default() })), losses)
    }

    /// For the engine, which calls it on its own thread.
    pub fn outlet(&self) -> RaftOut {
        let peers = self.clone();
        Box::new(move |to, message| peers.send(to, message))
    }

    /// Where a Raft member answers, if that is known.
    pub fn address(&self, raft_id: u64) -> Option<String> {
        self.table().get(&raft_id).map(|peer| peer.address.clone())
    }

    /// Keeps the addresses current and reports losses; ends with the engine.
    pub async fn follow(self, engine: Engine, mut losses: mpsc::Receiver<u64>) {
        let mut publications = engine.publications();
        self.learn_all(&engine).await;
        loop {
            tokio::select! {
                lost = losses.recv() => match lost {
                    Some(peer) => engine.peer_lost(peer),
                    None => return,
                },
                publication = publications.recv() => match publication {
                    Ok(publication) => publication.changes.iter().for_each(|change| self.learn(change)),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.learn_all(&engine).await,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            }
        }
    }

    async fn learn_all(&self, engine: &Engine) {
        // A follower cannot list; it learns from the changes that it applies.
        if let Ok(Response::Nodes(nodes)) = engine.request(Request::ListNodes).await {
            nodes.iter().for_each(|view| self.learn_node(&view.node));
        }
    }

    fn learn(&self, change: &Change) {
        match change {
            Change::Node(NodeView { node, .. }) => self.learn_node(node),
            Change::NodeRemoved(node) => drop(self.table().remove(&raft_id(*node))),
            Change::Service(_)
            | Change::Task(_)
            | Change::Image(_)
            | Change::ServiceRemoved(_)
            | Change::TaskRemoved { .. }
            | Change::ImageRemoved(_) => {}
        }
    }

    fn learn_node(&self, node: &Node) {
        let Some(address) = &node.manager_address else { return };
        let mut table = self.table();
        match table.get_mut(&raft_id(node.id)) {
            Some(known) if known.address == *address => {}
            Some(_) | None => {
                let peer = Peer { node: node.id, address: address.clone(), queue: None };
                table.insert(raft_id(node.id), peer);
            }
        }
    }

    fn send(&self, to: u64, message: Bytes) {
        let mut table = self.table();
        let Some(peer) = table.get_mut(&to) else { return };
        let queue = peer.queue.get_or_insert_with(|| self.connect(to, peer.node, peer.address.clone()));
        if queue.try_send(v1::RaftMessage { message }).is_err() {
            let _ = self.0.lost.try_send(to);
        }
    }

    fn connect(&self, raft_id: u64, node: NodeId, address: String) -> mpsc::Sender<v1::RaftMessage> {
        let (queue, messages) = mpsc::channel(MAX_QUEUED);
        let this = self.clone();
        self.0.runtime.spawn(async move {
            let end = this.deliver(node, &address, messages).await;
            if let Err(error) = end {
                debug!(node.id = %node, error = chain(&error), "lost a manager");
            }
            let _ = this.0.lost.try_send(raft_id);
            tokio::time::sleep(REDIAL_PAUSE).await;
            if let Some(peer) = this.table().get_mut(&raft_id) {
                peer.queue = None;
            }
        });
        queue
    }

    async fn deliver(
        &self,
        node: NodeId,
        address: &str,
        messages: mpsc::Receiver<v1::RaftMessage>,
    ) -> Result<(), LostError> {
        let channel = self.0.dialler.connect_to(node, address).await?;
        let sent = RaftClient::new(channel).send(ReceiverStream::new(messages)).await;
        sent.map(drop).map_err(LostError::Stream)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raft_ids_are_never_zero() {
        assert_eq!(raft_id(NodeId::from_u128(0)), 1);
        assert_eq!(raft_id(NodeId::from_u128(5 << 64 | 5)), 1);
        assert_ne!(raft_id(NodeId::from_u128(1 << 64)), raft_id(NodeId::from_u128(2)));
    }
}
