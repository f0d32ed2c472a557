//! How an operator gets a certificate: as a node that joins does, the root is fetched from somebody not yet trusted and
//! believed only if the token pins it; the token's secret is sent over a connection that this root vouches for.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use swarm_proto::v1;
use swarm_proto::v1::certificate_authority_client::CertificateAuthorityClient;
use tonic::Status;
use tonic::transport::Channel;

use super::{OperatorCredentials, OperatorToken, operator_config};
use crate::credentials::{CredentialsError, NodeKey};
use crate::dial::connect;
use crate::join::{AnswerError, Attempt, JoinError, fetch_root, refused, unreachable};
use crate::tls::anonymous_config;
use crate::token::RootDigest;

/// Issuing waits for one write through Raft.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an operator has no certificate. Nothing was kept.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(
        "the manager at {address} shows a root certificate that the token does not pin: the token is of another \
         cluster, the cluster's root was replaced, or somebody is in between"
    )]
    WrongRoot { address: String },
    #[error(transparent)]
    Manager(#[from] JoinError),
    #[error("cannot make a key and its signing request")]
    Key(#[source] CredentialsError),
    #[error("the certificate that was issued cannot be used")]
    Answer(#[source] AnswerError),
    #[error("the manager refused: {}", .0.message())]
    Refused(Box<Status>),
}

/// An operator's credentials, and the managers to dial.
#[derive(Debug)]
pub struct Enrolled {
    pub credentials: OperatorCredentials,
    /// `host:port`.
    pub managers: Vec<String>,
}

/// Turns a token into credentials, by the first manager that can be reached. The key is made here.
///
/// # Errors
/// None could be reached ([`JoinError::Unreachable`] in it), or one refused; a refusal ends the attempt.
pub async fn enrol(token: &OperatorToken, managers: &[String]) -> Result<Enrolled, EnrolError> {
    if managers.is_empty() {
        return Err(JoinError::NoManagers.into());
    }
    // One key for all attempts: a manager whose answer was lost may have used the token for it.
    let key = NodeKey::generate().map_err(EnrolError::Key)?;
    let mut failures = Vec::new();
    for address in managers {
        match enrol_at(address, token, &key).await {
            Err(Ended::Unreachable(cause)) => failures.push(format!("{address}: {cause}")),
            Err(Ended::Refused(error)) => return Err(error),
            Ok(enrolled) => return Ok(enrolled),
        }
    }
    Err(JoinError::Unreachable(failures.join("; ")).into())
}

enum Ended {
    /// The next manager may be tried.
    Unreachable(String),
    Refused(EnrolError),
}

impl From<Attempt> for Ended {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Unreachable(cause) => Self::Unreachable(cause),
            Attempt::Ended(error) => Self::Refused(error.into()),
        }
    }
}

async fn enrol_at(address: &str, token: &OperatorToken, key: &NodeKey) -> Result<Enrolled, Ended> {
    let answer = |source| Ended::Refused(EnrolError::Answer(source));
    let root_pem = fetch_root(address).await?;
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes())
        .map_err(|error| answer(AnswerError::Root(error)))?;
    if RootDigest::of(&root) != token.root {
        return Err(Ended::Refused(EnrolError::WrongRoot { address: address.to_owned() }));
    }
    let config = anonymous_config(root).map_err(|error| answer(error.into()))?;
    let channel = connect(address, None, config).await.map_err(unreachable)?;
    let mut call = tonic::Request::new(v1::IssueOperatorCertificateRequest {
        csr: key.request().map_err(|error| Ended::Refused(EnrolError::Key(error)))?,
        token: token.reveal(),
    });
    call.set_timeout(CALL_TIMEOUT);
    let issued = CertificateAuthorityClient::new(channel).issue_operator_certificate(call).await;
    let issued = issued.map_err(|status| refused(address, &status))?.into_inner();
    certified(key, issued, &root_pem).map_err(Ended::Refused)
}

/// New credentials over a connection that proves the old ones; the account stays the same.
///
/// # Errors
/// The manager refused, or is not reached any more.
pub async fn renew_operator(old: &OperatorCredentials, channel: Channel) -> Result<Enrolled, EnrolError> {
    let key = NodeKey::generate().map_err(EnrolError::Key)?;
    let csr = key.request().map_err(EnrolError::Key)?;
    let mut call = tonic::Request::new(v1::RenewOperatorCertificateRequest { csr });
    call.set_timeout(CALL_TIMEOUT);
    let issued = CertificateAuthorityClient::new(channel).renew_operator_certificate(call).await;
    let issued = issued.map_err(|status| EnrolError::Refused(Box::new(status)))?.into_inner();
    let enrolled = certified(&key, issued, old.roots_pem())?;
    if enrolled.credentials.identity() != old.identity() {
        return Err(EnrolError::Answer(AnswerError::Names));
    }
    Ok(enrolled)
}

fn certified(
    key: &NodeKey,
    issued: v1::IssueOperatorCertificateResponse,
    known_roots: &str,
) -> Result<Enrolled, EnrolError> {
    let roots = if issued.root_certificates.is_empty() { known_roots } else { &issued.root_certificates };
    let made = OperatorCredentials::new(key.pem(), issued.certificate_chain, roots.to_owned());
    let credentials = made.map_err(|error| EnrolError::Answer(error.into()))?;
    // Checks that the certificate belongs to the key.
    operator_config(&credentials).map_err(|error| EnrolError::Answer(error.into()))?;
    Ok(Enrolled { credentials, managers: issued.managers })
}

/// The roots to believe, as the cluster says over a connection that one of them vouched for, PEM; the last one issues.
/// `None`: it cannot be asked at the moment.
pub async fn current_roots(channel: Channel) -> Option<String> {
    let mut call = tonic::Request::new(v1::GetRootRequest {});
    call.set_timeout(CALL_TIMEOUT);
    let answer = CertificateAuthorityClient::new(channel).get_root(call).await.ok()?.into_inner();
    Some(answer.root_certificates).filter(|roots| !roots.is_empty())
}
