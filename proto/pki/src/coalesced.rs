//! Streams on which small frames leave together.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream for HTTP/2, on which many small frames leave with few system calls, each in few TLS records:
/// - It says of itself that it cannot write from several places. Then frames of up to 1 KiB are copied behind each other
///   first; else each that holds more than 256 bytes would be written alone.
/// - Before it writes it lets the tasks run that are ready. They are mostly calls whose answers come of the same commit,
///   or clients that go on with them; what they have to say leaves together.
#[derive(Debug)]
pub struct Coalesced<S> {
    stream: S,
    /// The others had their turn since the last flush.
    yielded: bool,
}

impl<S> Coalesced<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, yielded: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.yielded, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.yielded = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn tasks_that_are_ready_run_before_a_write_once_per_flush() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut stream = Coalesced::new(ours);
        assert!(!stream.is_write_vectored());
        let ran = Arc::new(AtomicUsize::new(0));
        let spawn = || {
            let ran = Arc::clone(&ran);
            tokio::spawn(async move { ran.fetch_add(1, Ordering::Relaxed) })
        };
        let count = || ran.load(Ordering::Relaxed);
        spawn();
        spawn();
        stream.write_all(b"a").await.unwrap();
        assert_eq!(count(), 2, "they run first");
        spawn();
        stream.write_all(b"b").await.unwrap();
        assert_eq!(count(), 2, "of the same flush: nobody is waited for");
        stream.flush().await.unwrap();
        stream.write_all(b"c").await.unwrap();
        assert_eq!(count(), 3);
        drop(stream);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "abc");
    }
}
