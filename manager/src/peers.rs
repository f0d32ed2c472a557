//! Messages to the other managers: one connection and one bounded queue each, and a second connection to whoever leads,
//! for the calls that are forwarded.
//!
//! Raft repairs whatever is lost, so nothing is retried: a message that finds no room or no connection is dropped, and
//! the core is told that the peer was lost. Who answers must prove to be the very node that is meant.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use swarm_manager_core::door::{Capture, Member};
use swarm_model::NodeId;
use swarm_pki::{DialError, Dialler};
use swarm_proto::v1;
use swarm_proto::v1::raft_client::RaftClient;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tracing::debug;

use crate::engine::{Engine, Outgoing, RaftOut};
use crate::text::chain;

/// Messages that wait for one peer: a heartbeat interval's worth of the fastest leader.
const MAX_QUEUED: usize = 4_096;
/// Of them, on their way to the connection.
const MAX_SENDING: usize = 64;
/// A message above this has a call of its own, in pieces. Appends have 1 MiB, or one larger entry.
const LARGE_BYTES: usize = 2 << 20;
const PIECE_BYTES: usize = 1 << 20;
/// Pieces on their way: a snapshot is in memory once, not once more in the connection.
const MAX_PIECES: usize = 2;
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
    /// How this manager introduces itself.
    introduction: v1::RaftMessage,
    peers: Mutex<BTreeMap<u64, Peer>>,
    /// Calls that are forwarded go here.
    leader: tokio::sync::Mutex<Option<Leading>>,
}

/// The connection to the manager that led last.
struct Leading {
    raft_id: u64,
    address: Address,
    channel: Channel,
}

/// Whom and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    node: NodeId,
    address: String,
}

struct Peer {
    address: Address,
    /// While there is a connection, or one is being made.
    queue: Option<mpsc::Sender<Outgoing>>,
    /// Why the last connection ended, or none came about.
    trouble: Option<String>,
}

/// Why a connection to a peer ended.
#[derive(Debug, thiserror::Error)]
enum LostError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the stream was ended")]
    Stream(#[source] tonic::Status),
}

impl LostError {
    /// The cause alone: whom it is about is said already.
    fn brief(&self) -> String {
        let mut cause: &dyn std::error::Error = match self {
            Self::Stream(status) => return status.message().to_owned(),
            Self::Dial(error) => error,
        };
        while let Some(source) = cause.source() {
            cause = source;
        }
        let text = cause.to_string();
        text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text).to_lowercase()
    }
}

/// Why there is no connection to the leader.
#[derive(Debug, thiserror::Error)]
pub enum NoLeaderError {
    #[error("the address of manager {0} is not known yet")]
    Unknown(u64),
    #[error(transparent)]
    Dial(#[from] DialError),
}

impl Peers {
    /// Must be called within a tokio runtime. What is received holds the peers that were lost, for [`Self::follow`].
    pub fn new(dialler: Dialler, raft_id: u64, advertise: String) -> (Self, mpsc::Receiver<u64>) {
        let (lost, losses) = mpsc::channel(MAX_LOSSES);
        let introduction = v1::RaftMessage {
            sender_raft_id: raft_id,
            sender_address: advertise,
            ..v1::RaftMessage::default()
        };
        let shared = Shared {
            dialler,
            runtime: tokio::runtime::Handle::current(),
            lost,
            introduction,
            peers: Mutex::default(),
            leader: tokio::sync::Mutex::default(),
        };
        (Self(Arc::new(shared)), losses)
    }

    /// For the engine, which calls it on its own thread.
    pub fn outlet(&self) -> RaftOut {
        let peers = self.clone();
        Box::new(move |to, message| peers.send(to, message))
    }

    /// `host:port` where a Raft member answers, if that is known.
    pub fn address(&self, raft_id: u64) -> Option<String> {
        self.table().get(&raft_id).map(|peer| peer.address.address.clone())
    }

    /// Why a Raft member is not reached, in a few words, if that is known.
    pub fn trouble(&self, raft_id: u64) -> Option<String> {
        self.table().get(&raft_id).and_then(|peer| peer.trouble.clone())
    }

    /// This manager's number among the members.
    pub fn own(&self) -> u64 {
        self.0.introduction.sender_raft_id
    }

    /// The other managers.
    pub fn others(&self) -> Vec<(NodeId, String)> {
        let own = self.0.introduction.sender_raft_id;
        let table = self.table();
        let others = table.iter().filter(|(id, _)| **id != own);
        others.map(|(_, peer)| (peer.address.node, peer.address.address.clone())).collect()
    }

    /// A connection to the manager that is `node`, for image content.
    ///
    /// # Errors
    /// Nothing answers there in time, or it is another node.
    pub async fn dial(&self, node: NodeId, address: &str) -> Result<Channel, DialError> {
        self.0.dialler.connect_to(node, address).await
    }

    /// A connection to the manager that leads; kept for the next call.
    ///
    /// # Errors
    /// It is not known where it is, or it does not answer.
    pub async fn leader(&self, raft_id: u64) -> Result<Channel, NoLeaderError> {
        let address = self.table().get(&raft_id).map(|peer| peer.address.clone());
        let address = address.ok_or(NoLeaderError::Unknown(raft_id))?;
        let mut kept = self.0.leader.lock().await;
        if let Some(leading) = kept.as_ref().filter(|leading| leading.address == address) {
            return Ok(leading.channel.clone());
        }
        *kept = None;
        let channel = self.0.dialler.connect_to(address.node, &address.address).await?;
        *kept = Some(Leading { raft_id, address, channel: channel.clone() });
        Ok(channel)
    }

    /// The connection to a leader broke. One to its successor stays.
    pub async fn hang_up_leader(&self, raft_id: u64) {
        self.0.leader.lock().await.take_if(|leading| leading.raft_id == raft_id);
    }

    /// Keeps the addresses current and reports losses; ends with the engine.
    pub async fn follow(self, engine: Engine, mut losses: mpsc::Receiver<u64>) {
        let mut members = engine.members();
        members.mark_changed();
        loop {
            tokio::select! {
                lost = losses.recv() => match lost {
                    Some(peer) => engine.peer_lost(peer),
                    None => return,
                },
                changed = members.changed() => match changed {
                    Ok(()) => self.know(&members.borrow_and_update()),
                    Err(_) => return,
                },
            }
        }
    }

    /// Replaces all that is known. A manager without members has just joined: it keeps whoever introduced itself.
    fn know(&self, members: &[Member]) {
        if members.is_empty() {
            return;
        }
        let mut table = self.table();
        table.retain(|id, _| members.iter().any(|member| member.raft_id == *id));
        for member in members {
            let address = Address { node: member.node, address: member.address.clone() };
            enter(&mut table, member.raft_id, address);
        }
    }

    /// A manager of the cluster said who it is; what the cluster itself says of it counts more.
    pub fn introduce(&self, node: NodeId, introduction: &v1::RaftMessage) {
        let mut table = self.table();
        let id = introduction.sender_raft_id;
        if id != 0 && !introduction.sender_address.is_empty() && !table.contains_key(&id) {
            let address = introduction.sender_address.clone();
            enter(&mut table, id, Address { node, address });
        }
    }

    fn send(&self, to: u64, message: Outgoing) {
        let mut table = self.table();
        let Some(peer) = table.get_mut(&to) else { return };
        let queue = peer.queue.get_or_insert_with(|| self.connect(to, peer.address.clone()));
        if queue.try_send(message).is_err() {
            let _ = self.0.lost.try_send(to);
        }
    }

    fn connect(&self, raft_id: u64, address: Address) -> mpsc::Sender<Outgoing> {
        let (queue, messages) = mpsc::channel(MAX_QUEUED);
        let (this, own) = (self.clone(), queue.downgrade());
        self.0.runtime.spawn(async move {
            let end = this.deliver(raft_id, &address, messages).await;
            if let Err(error) = end {
                if let Some(peer) = this.table().get_mut(&raft_id) {
                    peer.trouble = Some(error.brief());
                }
                debug!(node.id = %address.node, error = chain(&error), "lost a manager");
            }
            let _ = this.0.lost.try_send(raft_id);
            tokio::time::sleep(REDIAL_PAUSE).await;
            if let Some(peer) = this.table().get_mut(&raft_id)
                && own
                    .upgrade()
                    .is_some_and(|own| peer.queue.as_ref().is_some_and(|queue| queue.same_channel(&own)))
            {
                peer.queue = None;
            }
        });
        queue
    }

    /// Runs until the connection breaks, or the peer is forgotten.
    async fn deliver(
        &self,
        raft_id: u64,
        address: &Address,
        mut messages: mpsc::Receiver<Outgoing>,
    ) -> Result<(), LostError> {
        let channel = self.0.dialler.connect_to(address.node, &address.address).await?;
        let (sender, stream) = mpsc::channel(MAX_SENDING);
        let mut client = RaftClient::new(channel.clone());
        let call = client.send(ReceiverStream::new(stream));
        let one_large = Arc::new(Semaphore::new(1));
        let feed = async {
            // Nobody takes it any more: the call ends, too.
            let _ = sender.send(self.0.introduction.clone()).await;
            while let Some(outgoing) = messages.recv().await {
                match outgoing {
                    Outgoing::Message(message) if message.len() <= LARGE_BYTES => {
                        let _ = sender.send(v1::RaftMessage { message, ..v1::RaftMessage::default() }).await;
                    }
                    large @ (Outgoing::Message(_) | Outgoing::Snapshot(..)) => {
                        self.deliver_large(raft_id, channel.clone(), large, Arc::clone(&one_large));
                    }
                }
            }
        };
        tokio::select! {
            sent = call => sent.map(drop).map_err(LostError::Stream),
            () = feed => Ok(()),
        }
    }

    /// Sends what is large beside the others, one at a time. A state is encoded as fast as it is taken.
    fn deliver_large(&self, raft_id: u64, channel: Channel, large: Outgoing, one_large: Arc<Semaphore>) {
        let this = self.clone();
        tokio::spawn(async move {
            let _turn = one_large.acquire().await;
            let (sender, stream) = mpsc::channel(MAX_PIECES);
            let introduction = this.0.introduction.clone();
            let feed = async move {
                let _ = sender.send(introduction).await;
                // Nobody takes it any more: the call says why.
                let _ = match large {
                    Outgoing::Message(message) => send_message(&sender, message).await,
                    Outgoing::Snapshot(message, state) => send_snapshot(&sender, message, &state).await,
                };
            };
            let mut client = RaftClient::new(channel);
            let (sent, ()) = tokio::join!(client.send(ReceiverStream::new(stream)), feed);
            if let Err(status) = sent {
                debug!(%status, "a large message to a manager was lost");
                let _ = this.0.lost.try_send(raft_id);
            }
        });
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Pieces = mpsc::Sender<v1::RaftMessage>;
type Ended = mpsc::error::SendError<v1::RaftMessage>;

async fn send_message(pieces: &Pieces, mut rest: Bytes) -> Result<(), Ended> {
    while !rest.is_empty() {
        let message = rest.split_to(rest.len().min(PIECE_BYTES));
        let more = !rest.is_empty();
        pieces.send(v1::RaftMessage { message, more, ..v1::RaftMessage::default() }).await?;
    }
    Ok(())
}

async fn send_snapshot(pieces: &Pieces, message: Bytes, state: &Capture) -> Result<(), Ended> {
    pieces.send(v1::RaftMessage { message, more: true, ..v1::RaftMessage::default() }).await?;
    for state in state.pieces() {
        pieces.send(v1::RaftMessage { state, more: true, ..v1::RaftMessage::default() }).await?;
    }
    pieces.send(v1::RaftMessage::default()).await
}

/// A peer that moved is connected to anew.
fn enter(table: &mut BTreeMap<u64, Peer>, raft_id: u64, address: Address) {
    if table.get(&raft_id).is_none_or(|known| known.address != address) {
        table.insert(raft_id, Peer { address, queue: None, trouble: None });
    }
}
