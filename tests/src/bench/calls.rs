//! Calls of gRPC straight over HTTP/2, as a client on a machine of its own would make them: what a client library costs on
//! the managers' processors would else be measured with them.

use anyhow::{Context, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Uri};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

/// As managers among each other have them.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// For whom a manager forwards a call.
const CALLER: &str = "swarm-caller";
/// Before a message: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;

/// A connection. Clones are the same.
#[derive(Clone)]
pub struct Calls {
    h2: SendRequest<Bytes>,
    address: String,
}

impl Calls {
    /// # Errors
    /// The other side does not speak HTTP/2.
    pub async fn begin(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: &str,
    ) -> anyhow::Result<Self> {
        let (h2, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await?;
        tokio::spawn(connection);
        Ok(Self { h2, address: address.to_owned() })
    }

    /// Calls as a manager that forwards for root of its node.
    ///
    /// # Errors
    /// The connection broke, or the call was answered with an error.
    pub async fn call<A: Message + Default>(&self, path: &str, message: &impl Message) -> anyhow::Result<A> {
        let uri =
            Uri::builder().scheme("http").authority(self.address.as_str()).path_and_query(path).build()?;
        let request = Request::post(uri)
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header(CALLER, "root bench")
            .body(())?;
        let mut h2 = self.h2.clone().ready().await?;
        let (response, mut body) = h2.send_request(request, false)?;
        body.send_data(framed(message), true)?;
        let response = response.await?;
        let (parts, mut body) = response.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            bytes.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        match status(&parts.headers).or(status(&trailers)) {
            Some(("0", _)) => {}
            Some((code, message)) => bail!("{path} was answered with code {code}: {message}"),
            None => bail!("{path} was answered without a status"),
        }
        ensure!(bytes.len() >= FRAME_BYTES && bytes[0] == 0, "{path} was answered without a message");
        A::decode(&bytes[FRAME_BYTES..]).context("the answer cannot be read")
    }
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("a message of this benchmark is small"));
    message.encode(&mut frame).expect("there is room for it");
    frame.freeze()
}

/// `None`: not in these headers.
fn status(headers: &HeaderMap) -> Option<(&str, &str)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    Some((text("grpc-status")?, text("grpc-message").unwrap_or_default()))
}
