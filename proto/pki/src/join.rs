//! How a node becomes a member: fetch the root certificate from somebody not yet trusted, believe it only if the token
//! pins it, then ask for a certificate over a connection that this root vouches for.
//!
//! The token's secret is sent over that second connection only.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use swarm_proto::v1;
use swarm_proto::v1::certificate_authority_client::CertificateAuthorityClient;
use tonic::Code;

use crate::credentials::{Credentials, CredentialsError, NodeKey};
use crate::dial::{DialError, connect};
use crate::tls::{TlsError, anonymous_config, client_config, finished, provider};
use crate::token::{JoinToken, RootDigest};

/// For each of the two calls. Issuing waits for one write through Raft.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a joining node says.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    pub token: JoinToken,
    /// `host:port`, tried in order.
    pub managers: Vec<String>,
    pub hostname: String,
    /// Address of the node's data path.
    pub data_address: String,
    /// `host:port` where it will answer, if the token makes it a manager.
    pub manager_address: String,
}

/// Why a node did not become a member. Nothing was kept.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("no manager was named")]
    NoManagers,
    #[error("no manager could be reached: {0}")]
    Unreachable(String),
    #[error(
        "the manager at {address} shows a root certificate that the token does not pin: the token is of another \
         cluster, the cluster's root was replaced, or somebody is in between; fetch a fresh token with `swarmctl \
         cluster join-token`"
    )]
    WrongRoot { address: String },
    #[error("the manager at {address} refused: {message}")]
    Refused { address: String, message: String, code: Code },
    #[error("the manager at {address} answered with a certificate that cannot be used")]
    Answer {
        address: String,
        #[source]
        source: AnswerError,
    },
    #[error("cannot make a key and its signing request")]
    Key(#[source] CredentialsError),
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("the root certificate is not PEM")]
    Root(#[source] rustls::pki_types::pem::Error),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the certificate names another node or role than the answer")]
    Names,
}

/// A member's credentials, and the managers that it may dial from now on.
#[derive(Debug)]
pub struct Joined {
    pub credentials: Credentials,
    pub managers: Vec<String>,
    /// A manager's number among the Raft members.
    pub raft_id: Option<u64>,
}

/// Joins by the first manager that can be reached. Makes a fresh key; a repeated call is another node.
///
/// # Errors
/// None could be reached, or one refused; a refusal ends the attempt.
pub async fn join(request: &JoinRequest) -> Result<Joined, JoinError> {
    let mut attempts = Attempts::default();
    for address in &request.managers {
        let key = NodeKey::generate().map_err(JoinError::Key)?;
        if let Some(ended) = attempts.take(address, join_at(address, request, key, "").await) {
            return ended;
        }
    }
    attempts.none()
}

/// Joins again as the member whose certificate expired: proves its key, and shows a token. The key stays, the node and its
/// tasks too.
///
/// # Errors
/// As [`join`]; also where the node is a member no more.
pub async fn join_again(expired: &Credentials, request: &JoinRequest) -> Result<Joined, JoinError> {
    let mut attempts = Attempts::default();
    for address in &request.managers {
        let key = expired.key_again().map_err(JoinError::Key)?;
        let joined = join_at(address, request, key, expired.chain_pem()).await;
        let joined = joined.and_then(|joined| same_member(address, expired, joined));
        if let Some(ended) = attempts.take(address, joined) {
            return ended;
        }
    }
    attempts.none()
}

/// Managers that could not be reached, as text; empty: none was tried.
#[derive(Default)]
struct Attempts(String);

impl Attempts {
    /// `None`: the next manager may be tried.
    fn take(&mut self, address: &str, attempt: Result<Joined, Attempt>) -> Option<Result<Joined, JoinError>> {
        match attempt {
            Err(Attempt::Unreachable(cause)) => {
                let separator = if self.0.is_empty() { "" } else { "; " };
                let _ = write!(self.0, "{separator}{address}: {cause}");
                None
            }
            Err(Attempt::Ended(error)) => Some(Err(error)),
            Ok(joined) => Some(Ok(joined)),
        }
    }

    fn none(self) -> Result<Joined, JoinError> {
        Err(if self.0.is_empty() { JoinError::NoManagers } else { JoinError::Unreachable(self.0) })
    }
}

fn same_member(address: &str, old: &Credentials, joined: Joined) -> Result<Joined, Attempt> {
    let (was, is) = (old.identity(), joined.credentials.identity());
    if (was.node, was.cluster) == (is.node, is.cluster) {
        return Ok(joined);
    }
    Err(Attempt::Ended(JoinError::Answer { address: address.to_owned(), source: AnswerError::Names }))
}

pub(crate) enum Attempt {
    /// The next manager may be tried.
    Unreachable(String),
    Ended(JoinError),
}

async fn join_at(
    address: &str,
    request: &JoinRequest,
    key: NodeKey,
    expired_certificate: &str,
) -> Result<Joined, Attempt> {
    let answer =
        |source: AnswerError| Attempt::Ended(JoinError::Answer { address: address.to_owned(), source });
    let root_pem = fetch_root(address).await?;
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes())
        .map_err(|error| answer(AnswerError::Root(error)))?;
    if RootDigest::of(&root) != request.token.root {
        return Err(Attempt::Ended(JoinError::WrongRoot { address: address.to_owned() }));
    }
    let config = anonymous_config(root).map_err(|error| answer(error.into()))?;
    let channel = connect(address, None, config).await.map_err(unreachable)?;
    let mut call = tonic::Request::new(v1::IssueNodeCertificateRequest {
        csr: key.request().map_err(|error| Attempt::Ended(JoinError::Key(error)))?,
        token: request.token.reveal(),
        hostname: request.hostname.clone(),
        data_address: request.data_address.clone(),
        manager_address: request.manager_address.clone(),
        expired_certificate: expired_certificate.to_owned(),
    });
    call.set_timeout(CALL_TIMEOUT);
    let issued = CertificateAuthorityClient::new(channel).issue_node_certificate(call).await;
    let issued = issued.map_err(|status| refused(address, &status))?.into_inner();
    let credentials = certify(key, &issued, &root_pem).map_err(answer)?;
    Ok(Joined { credentials, managers: issued.managers, raft_id: Some(issued.raft_id).filter(|id| *id != 0) })
}

/// A member's new credentials, for a fresh key, with the role that the cluster has for the node now. The managers are
/// tried in order.
///
/// # Errors
/// None could be reached, or one refused.
pub async fn renew(
    credentials: &Credentials,
    managers: &[String],
    manager_address: &str,
) -> Result<Joined, JoinError> {
    let mut attempts = Attempts::default();
    for address in managers {
        let renewed = renew_at(address, credentials, manager_address).await;
        if let Some(ended) = attempts.take(address, renewed) {
            return ended;
        }
    }
    attempts.none()
}

async fn renew_at(address: &str, old: &Credentials, manager_address: &str) -> Result<Joined, Attempt> {
    let answer =
        |source: AnswerError| Attempt::Ended(JoinError::Answer { address: address.to_owned(), source });
    let config = client_config(old).map_err(|error| answer(error.into()))?;
    let channel = connect(address, None, config).await.map_err(unreachable)?;
    let key = NodeKey::generate().map_err(|error| Attempt::Ended(JoinError::Key(error)))?;
    let mut call = tonic::Request::new(v1::RenewNodeCertificateRequest {
        csr: key.request().map_err(|error| Attempt::Ended(JoinError::Key(error)))?,
        manager_address: manager_address.to_owned(),
    });
    call.set_timeout(CALL_TIMEOUT);
    let issued = CertificateAuthorityClient::new(channel).renew_node_certificate(call).await;
    let issued = issued.map_err(|status| refused(address, &status))?.into_inner();
    let credentials = certify(key, &issued, old.roots_pem()).map_err(answer)?;
    let raft_id = Some(issued.raft_id).filter(|id| *id != 0);
    same_member(address, old, Joined { credentials, managers: issued.managers, raft_id })
}

pub(crate) async fn fetch_root(address: &str) -> Result<String, Attempt> {
    let channel = connect(address, None, trusting_config()).await.map_err(unreachable)?;
    let mut call = tonic::Request::new(v1::GetRootRequest {});
    call.set_timeout(CALL_TIMEOUT);
    let answer = CertificateAuthorityClient::new(channel).get_root(call).await;
    Ok(answer.map_err(|status| refused(address, &status))?.into_inner().root_certificate)
}

fn certify(
    key: NodeKey,
    issued: &v1::IssueNodeCertificateResponse,
    known_roots: &str,
) -> Result<Credentials, AnswerError> {
    let roots = if issued.root_certificates.is_empty() { known_roots } else { &issued.root_certificates };
    let credentials = key.certified(&issued.certificate_chain, roots)?;
    let identity = credentials.identity();
    if identity.node.to_string() != issued.node_id || identity.cluster.to_string() != issued.cluster_id {
        return Err(AnswerError::Names);
    }
    // Checks that the certificate belongs to the key.
    client_config(&credentials)?;
    Ok(credentials)
}

pub(crate) fn unreachable(error: DialError) -> Attempt {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Attempt::Unreachable(cause.to_string())
}

pub(crate) fn refused(address: &str, status: &tonic::Status) -> Attempt {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            Attempt::Unreachable(status.message().to_owned())
        }
        code => Attempt::Ended(JoinError::Refused {
            address: address.to_owned(),
            message: status.message().to_owned(),
            code,
        }),
    }
}

/// Believes any server: for fetching the root certificate only, which is public and checked by its digest.
fn trusting_config() -> Arc<ClientConfig> {
    let provider = provider();
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    finished(config)
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
