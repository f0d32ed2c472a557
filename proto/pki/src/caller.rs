//! Who is on the other side of a connection. Attached to every request as an extension.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use crate::coalesced::Coalesced;
use crate::expelled::Cut;
use crate::identity::NodeIdentity;
use crate::operator::OperatorIdentity;

/// The proven identity of a connection's other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Root of this node, over the local socket.
    Root,
    /// An operator, by their certificate.
    Operator(OperatorIdentity),
    /// A member of this cluster, by its certificate.
    Node(NodeIdentity),
    /// Somebody without a certificate.
    Anyone,
}

/// A byte stream with the identity of its other side. tonic hands the [`Caller`] to every request.
#[derive(Debug)]
pub struct Connection<S> {
    stream: Coalesced<S>,
    caller: Caller,
    /// When it ends, whatever is under way.
    until: Option<Pin<Box<Sleep>>>,
    /// Ends it when the caller is removed from the cluster.
    cut: Option<Arc<Cut>>,
    /// Its place among the connections of its kind.
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    pub(crate) fn new(stream: S, caller: Caller) -> Self {
        Self { stream: Coalesced::new(stream), caller, until: None, cut: None, _place: None }
    }

    /// For as long as the caller is not expelled.
    pub(crate) fn of_member(stream: S, caller: Caller, cut: Arc<Cut>) -> Self {
        Self { cut: Some(cut), ..Self::new(stream, caller) }
    }

    /// One of few, and not for long.
    pub(crate) fn passing(stream: S, caller: Caller, life: Duration, place: OwnedSemaphorePermit) -> Self {
        let until = Some(Box::pin(tokio::time::sleep(life)));
        Self { until, _place: Some(place), ..Self::new(stream, caller) }
    }

    fn is_cut(&self, context: &Context<'_>) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.is_done(context))
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use swarm_model::{ClusterId, NodeId, NodeRole};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::expelled::Expelled;

    #[tokio::test(start_paused = true)]
    async fn a_passing_connection_ends_by_itself_and_gives_its_place_back() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut connection = Connection::passing(ours, Caller::Anyone, Duration::from_secs(30), place);
        theirs.write_all(b"x").await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), b'x');
        let ended = connection.read_u8().await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert_eq!(places.available_permits(), 0);
        drop(connection);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_connection_that_waits_ends_when_its_node_is_expelled() {
        let (node, cluster) = (NodeId::from_u128(1), ClusterId::from_u128(2));
        let identity = NodeIdentity { node, role: NodeRole::Worker, cluster };
        let expelled = Expelled::default();
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut connection =
            Connection::of_member(ours, Caller::Node(identity), expelled.enter(node.0).unwrap());
        let reading = tokio::spawn(async move { connection.read_u8().await });
        tokio::task::yield_now().await;
        expelled.set([NodeId::from_u128(9).0]);
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        expelled.set([node.0, NodeId::from_u128(9).0]);
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(expelled.enter(node.0).is_none());
    }
}
