//! What an operator proves itself with. The text is for one file, so that a crash never leaves a key beside another
//! key's certificate; where it is kept is the caller's business.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::OperatorIdentity;
use crate::credentials::{CredentialsError, ROOTS, split};
use crate::tls::{TlsError, finished, provider};

/// An operator's key with its certificate, and the roots that managers are believed by.
pub struct OperatorCredentials {
    identity: OperatorIdentity,
    name: String,
    key_pem: String,
    chain_pem: String,
    roots_pem: String,
}

impl OperatorCredentials {
    /// # Errors
    /// The chain is not PEM, or names no operator.
    pub fn new(key_pem: String, chain_pem: String, roots_pem: String) -> Result<Self, CredentialsError> {
        let (identity, name) = OperatorIdentity::of(&leaf(&chain_pem)?)
            .map_err(CredentialsError::Identity)?
            .ok_or(CredentialsError::NoOperator)?;
        Ok(Self { identity, name, key_pem, chain_pem, roots_pem })
    }

    /// From what [`Self::to_text`] made.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let (key, chain, root) = split(text).map_err(CredentialsError::Text)?;
        Self::new(key.to_owned(), chain.to_owned(), root.to_owned())
    }

    /// Key, chain and roots in PEM. Holds the private key.
    pub fn to_text(&self) -> String {
        format!("{}{}{ROOTS}{}", self.key_pem, self.chain_pem, self.roots_pem)
    }

    pub fn identity(&self) -> &OperatorIdentity {
        &self.identity
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The roots that managers are believed by, PEM.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// From when to when the certificate is valid.
    ///
    /// # Errors
    /// The certificate cannot be parsed.
    pub fn validity(&self) -> Result<(SystemTime, SystemTime), CredentialsError> {
        crate::identity::validity(&leaf(&self.chain_pem)?).map_err(CredentialsError::Identity)
    }

    /// # Errors
    /// As [`Self::validity`].
    pub fn valid_until(&self) -> Result<SystemTime, CredentialsError> {
        self.validity().map(|(_, until)| until)
    }
}

impl std::fmt::Debug for OperatorCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { identity, name, .. } = self;
        f.debug_struct("OperatorCredentials")
            .field("name", name)
            .field("identity", identity)
            .finish_non_exhaustive()
    }
}

fn leaf(chain_pem: &str) -> Result<CertificateDer<'static>, CredentialsError> {
    CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(CredentialsError::NoCertificate)
}

/// For a dialler that proves to be the operator.
///
/// # Errors
/// The credentials cannot be used.
pub fn operator_config(credentials: &OperatorCredentials) -> Result<Arc<ClientConfig>, TlsError> {
    let certificates = |pem: &str| {
        let parsed = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        parsed.map_err(|error| TlsError::Credentials(CredentialsError::NoCertificate(error)))
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(&credentials.roots_pem)? {
        roots.add(root).map_err(TlsError::Root)?;
    }
    let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes());
    let key = key.map_err(|error| TlsError::Credentials(CredentialsError::NoCertificate(error)))?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&credentials.chain_pem)?, key)
        .map_err(TlsError::Certificate)?;
    Ok(finished(config))
}
