//! Listeners whose connections know who called: TLS over TCP, and the node's local socket.
//!
//! The TLS settings are read anew for each connection, so that key, chain and trusted root change together. Handshakes
//! run beside each other, each within a limit of time, so that a silent caller holds up nobody.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use swarm_model::ClusterId;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tracing::{debug, warn};

use crate::caller::{Caller, Connection};
use crate::expelled::Expelled;
use crate::identity::NodeIdentity;
use crate::operator::OperatorIdentity;

/// A handshake takes one round trip; this is for the slowest of links.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way. One costs about 0.2 ms of CPU, so this is well over a second of work for one core only when
/// all of them are honest; the others wait in the kernel's backlog.
const MAX_HANDSHAKES: usize = 1_024;
/// Connections of callers without a certificate, or with that of a node that was removed, and how long each may last. A join takes two short calls, so whoever
/// holds places without need loses them, and the others get their turn.
const MAX_ANONYMOUS: usize = 256;
const ANONYMOUS_LIFE: Duration = Duration::from_secs(30);
/// Shaken hands that the server has not taken yet.
const MAX_READY: usize = 64;
/// Pause after a failed accept, which means that file descriptors or memory ran out.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Accepted TLS connections. Dropping it closes the listener.
pub type TlsConnections = Connections<TlsStream<TcpStream>>;
/// Accepted connections of the local socket. Dropping it closes the listener.
pub type LocalConnections = Connections<UnixStream>;

/// For `serve_with_incoming`.
pub struct Connections<S> {
    ready: mpsc::Receiver<Connection<S>>,
    accepting: JoinHandle<()>,
}

impl<S> Stream for Connections<S> {
    type Item = io::Result<Connection<S>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

impl<S> Drop for Connections<S> {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts members and operators of `cluster`, and callers without a certificate; ends the connections of members that are expelled. Must be called within a tokio runtime.
pub fn accept_tls(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    cluster: ClusterId,
    expelled: Expelled,
) -> TlsConnections {
    let (sender, ready) = mpsc::channel(MAX_READY);
    let accepting = tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let anonymous = Arc::new(Semaphore::new(MAX_ANONYMOUS));
        loop {
            let permit = Arc::clone(&handshakes).acquire_owned().await.expect("never closed");
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            let (sender, acceptor) = (sender.clone(), TlsAcceptor::from(config.load_full()));
            let (anonymous, expelled) = (Arc::clone(&anonymous), expelled.clone());
            tokio::spawn(async move {
                match tokio::time::timeout(
                    HANDSHAKE_TIMEOUT,
                    shake_hands(stream, acceptor, cluster, anonymous, &expelled),
                )
                .await
                {
                    Ok(Ok(connection)) => drop(sender.send(connection).await),
                    Ok(Err(error)) => debug!(%from, %error, "connection refused"),
                    Err(_) => debug!(%from, "connection refused: no handshake in time"),
                }
                drop(permit);
            });
        }
    });
    Connections { ready, accepting }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    cluster: ClusterId,
    anonymous: Arc<Semaphore>,
    expelled: &Expelled,
) -> io::Result<Connection<TlsStream<TcpStream>>> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let passing = |stream, caller| {
        let place = anonymous.try_acquire_owned();
        let place = place.map_err(|_| io::Error::other("too many callers without a certificate"))?;
        Ok(Connection::passing(stream, caller, ANONYMOUS_LIFE, place))
    };
    let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else {
        return passing(stream, Caller::Anyone);
    };
    let (caller, id, of) = match OperatorIdentity::of(certificate).map_err(io::Error::other)? {
        Some((identity, _)) => (Caller::Operator(identity), identity.operator.0, identity.cluster),
        None => {
            let identity = NodeIdentity::of(certificate).map_err(io::Error::other)?;
            (Caller::Node(identity), identity.node.0, identity.cluster)
        }
    };
    if of != cluster {
        return Err(io::Error::other(format!("a member of another cluster, {of}")));
    }
    match expelled.enter(id) {
        Some(cut) => Ok(Connection::of_member(stream, caller, cut)),
        None => passing(stream, caller),
    }
}

/// Accepts root, and whoever runs this process. Must be called within a tokio runtime.
pub fn accept_local(listener: UnixListener) -> LocalConnections {
    let (sender, ready) = mpsc::channel(MAX_READY);
    let accepting = tokio::spawn(async move {
        let own = own_uid(&listener);
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || Some(peer.uid()) == own => {
                    if sender.send(Connection::new(stream, Caller::Root)).await.is_err() {
                        return;
                    }
                }
                Ok(peer) => debug!(uid = peer.uid(), "local connection refused: not root"),
                Err(error) => debug!(%error, "local connection refused: no credentials"),
            }
        }
    });
    Connections { ready, accepting }
}

/// The owner of the socket's file, which is whoever bound it.
fn own_uid(listener: &UnixListener) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let address = listener.local_addr().ok()?;
    Some(std::fs::metadata(address.as_pathname()?).ok()?.uid())
}

async fn pause(error: &io::Error) {
    warn!(%error, "cannot accept a connection");
    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
}
