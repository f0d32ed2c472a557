//! Streaming content of a known digest and size into the store.

use std::io::{self, Read};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{BlobWriter, ContentStore, MAX_BLOB_BYTES, StoreError};
use crate::{Descriptor, Digest};

/// How much is read before it is hashed and written in one go.
const CHUNK_BYTES: usize = 1 << 20;

/// Whether a blob had to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingested {
    /// It was written.
    New,
    /// It was there already; what was offered has been dropped, or not even read.
    AlreadyPresent,
}

/// Why a blob was not taken. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The descriptor claims more than any blob may have.
    #[error("blob {digest} is said to have {size} bytes, at most {MAX_BLOB_BYTES} are accepted")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// What its descriptor says.
        size: u64,
    },
    /// The source ended early.
    #[error("blob {digest} ended after {received} of {size} bytes")]
    Truncated {
        /// The blob.
        digest: Digest,
        /// What its descriptor says.
        size: u64,
        /// How much came.
        received: u64,
    },
    /// The source went on after the promised size.
    #[error("blob {digest} is longer than the {size} bytes it is said to have")]
    TooLong {
        /// The blob.
        digest: Digest,
        /// What its descriptor says.
        size: u64,
    },
    /// The content is something else.
    #[error("blob {expected} was asked for, but the content received is {actual}")]
    WrongDigest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The source failed.
    #[error("cannot read blob {digest} from its source")]
    Read {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error("cannot store blob {digest}")]
    Store {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// Checks one incoming blob against its descriptor, chunk by chunk.
struct Incoming {
    expected: Descriptor,
    writer: BlobWriter,
}

impl Incoming {
    /// `None` when the blob is there already.
    fn begin(store: &ContentStore, expected: &Descriptor) -> Result<Option<Self>, IngestError> {
        let (digest, size) = (expected.digest, expected.size);
        if size > MAX_BLOB_BYTES {
            return Err(IngestError::TooLarge { digest, size });
        }
        if store.contains(&digest) {
            return Ok(None);
        }
        let writer = store.writer().map_err(|source| IngestError::Store { digest, source })?;
        Ok(Some(Self { expected: expected.clone(), writer }))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        let Descriptor { digest, size, .. } = self.expected;
        if self.writer.size() + bytes.len() as u64 > size {
            return Err(IngestError::TooLong { digest, size });
        }
        self.writer.write(bytes).map_err(|source| IngestError::Store { digest, source })
    }

    fn end(self) -> Result<Ingested, IngestError> {
        let Descriptor { digest, size, .. } = self.expected;
        let received = self.writer.size();
        if received != size {
            return Err(IngestError::Truncated { digest, size, received });
        }
        let staged = self.writer.finish();
        if *staged.digest() != digest {
            return Err(IngestError::WrongDigest { expected: digest, actual: *staged.digest() });
        }
        staged.commit().map_err(|source| IngestError::Store { digest, source })
    }
}

impl ContentStore {
    /// Takes the blob that `expected` describes from `source`. Blocks; of a blob that is there already nothing is read.
    pub fn ingest(&self, expected: &Descriptor, mut source: impl Read) -> Result<Ingested, IngestError> {
        let Some(mut incoming) = Incoming::begin(self, expected)? else {
            return Ok(Ingested::AlreadyPresent);
        };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match source.read(&mut chunk) {
                Ok(0) => return incoming.end(),
                Ok(read) => incoming.write(&chunk[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(IngestError::Read { digest: expected.digest, source }),
            }
        }
    }

    /// [`ContentStore::ingest`] for an asynchronous source. `received` is told the bytes so far after each chunk.
    ///
    /// Hashing and writing run on the blocking pool in chunks of 1 MiB. Dropping the future drops the blob.
    pub async fn ingest_async(
        &self,
        expected: &Descriptor,
        mut source: impl AsyncRead + Unpin,
        received: impl Fn(u64),
    ) -> Result<Ingested, IngestError> {
        let (store, descriptor) = (self.clone(), expected.clone());
        let Some(mut incoming) = blocking(move || Incoming::begin(&store, &descriptor)).await? else {
            return Ok(Ingested::AlreadyPresent);
        };
        let mut chunk = Vec::new();
        loop {
            fill(&mut source, &mut chunk)
                .await
                .map_err(|source| IngestError::Read { digest: expected.digest, source })?;
            if chunk.is_empty() {
                return blocking(move || incoming.end()).await;
            }
            (incoming, chunk) = blocking(move || {
                incoming.write(&chunk)?;
                Ok((incoming, chunk))
            })
            .await?;
            received(incoming.writer.size());
        }
    }
}

/// Reads until `chunk` holds [`CHUNK_BYTES`] or the source ends.
async fn fill(source: &mut (impl AsyncRead + Unpin), chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.clear();
    let mut rest = source.take(CHUNK_BYTES as u64);
    while rest.read_buf(chunk).await? > 0 {}
    Ok(())
}

/// Runs `work` on the blocking pool; its panic is ours.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => panic!("a blocking task is never cancelled: {cancelled}"),
        },
    }
}
