//! TLS settings of both sides: TLS 1.3, ring, HTTP/2, the cluster's root and no other.
//!
//! No resumption: a resumed session would carry the identity of a certificate that was replaced since.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::credentials::{Credentials, CredentialsError};

const HTTP2: &[u8] = b"h2";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the node's credentials cannot be used")]
    Credentials(#[from] CredentialsError),
    #[error("the cluster's root certificate cannot be trusted")]
    Root(#[source] rustls::Error),
    #[error("callers cannot be verified against the cluster's root certificate")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("the node's key and certificate do not fit together")]
    Certificate(#[source] rustls::Error),
    #[error("TLS 1.3 is not available")]
    Protocol(#[source] rustls::Error),
}

/// For a listener. A caller without a certificate is let in, as [`crate::Caller::Anyone`]; one with a certificate that
/// is not the cluster's is refused.
///
/// # Errors
/// The credentials cannot be used.
pub fn server_config(credentials: &Credentials) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let roots = Arc::new(roots(credentials.roots()?)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain()?, credentials.key()?)
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For a dialler that proves to be the credentials' node.
///
/// # Errors
/// The credentials cannot be used.
pub fn client_config(credentials: &Credentials) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots(credentials.roots()?)?)
        .with_client_auth_cert(credentials.chain()?, credentials.key()?)
        .map_err(TlsError::Certificate)?;
    Ok(finished(config))
}

/// For a dialler that knows the cluster's root and has no certificate yet.
pub(crate) fn anonymous_config(root: CertificateDer<'static>) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots(vec![root])?)
        .with_no_client_auth();
    Ok(finished(config))
}

pub(crate) fn finished(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn roots(roots: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    roots.into_iter().try_for_each(|root| store.add(root)).map_err(TlsError::Root)?;
    Ok(store)
}
