//! What a node proves itself with: private key, certificate chain and the cluster's roots, kept in one file. There is one
//! root; while a new one takes over, two, of which the last one issues.
//!
//! One file, so that a crash can never leave a key beside another key's certificate. Mode 0600, replaced by rename.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::identity::{IdentityError, NodeIdentity, is_issued_by};
use crate::token::RootDigest;

/// Roots of a cluster at one time: the current one, and the next.
const MAX_ROOTS: usize = 2;
/// Comes before the roots in the file. A file without it has one root, the last certificate.
pub(crate) const ROOTS: &str = "Roots of the cluster:\n";
/// Key, leaf, up to one intermediate and the roots have under 6 KiB.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// A private key that has no certificate yet.
pub struct NodeKey(KeyPair);

/// A node's key with its certificate.
pub struct Credentials {
    identity: NodeIdentity,
    key_pem: String,
    chain_pem: String,
    roots_pem: String,
}

/// Why a node's credentials cannot be used or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    #[error("cannot {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a credentials file: {problem}", path.display())]
    Content { path: PathBuf, problem: &'static str },
    #[error("it is not the text of credentials: {0}")]
    Text(&'static str),
    #[error("the certificate is not an operator's")]
    NoOperator,
    #[error("there is no certificate in the PEM text")]
    NoCertificate(#[source] rustls::pki_types::pem::Error),
    #[error("{0} root certificates were given; a cluster has one, or two while they are rotated")]
    Roots(usize),
    #[error("the certificate names no member of a cluster")]
    Identity(#[source] IdentityError),
}

impl NodeKey {
    /// # Errors
    /// The cryptographic provider failed.
    pub fn generate() -> Result<Self, CredentialsError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(CredentialsError::Key)
    }

    /// A signing request for this key, PEM. It names nothing: names are the authority's.
    ///
    /// # Errors
    /// The cryptographic provider failed.
    pub fn request(&self) -> Result<String, CredentialsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(CredentialsError::Key)?;
        request.pem().map_err(CredentialsError::Key)
    }

    /// The private key, PKCS#8 PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// Puts the certificate to its key.
    ///
    /// # Errors
    /// The chain is not PEM, or names no node.
    pub fn certified(self, chain_pem: &str, roots_pem: &str) -> Result<Credentials, CredentialsError> {
        Credentials::new(self.0.serialize_pem(), chain_pem.to_owned(), roots_pem.to_owned())
    }
}

impl Credentials {
    fn new(key_pem: String, chain_pem: String, roots_pem: String) -> Result<Self, CredentialsError> {
        let leaf =
            CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(CredentialsError::NoCertificate)?;
        let identity = NodeIdentity::of(&leaf).map_err(CredentialsError::Identity)?;
        let credentials = Self { identity, key_pem, chain_pem, roots_pem };
        let roots = credentials.roots()?.len();
        if roots == 0 || roots > MAX_ROOTS {
            return Err(CredentialsError::Roots(roots));
        }
        Ok(credentials)
    }

    /// The same, with other roots to believe from now on.
    ///
    /// # Errors
    /// They are not PEM, none, or too many.
    pub fn trusting(&self, roots_pem: &str) -> Result<Self, CredentialsError> {
        Self::new(self.key_pem.clone(), self.chain_pem.clone(), roots_pem.to_owned())
    }

    /// The key, to be certified again.
    ///
    /// # Errors
    /// The key is not PEM of its kind.
    pub(crate) fn key_again(&self) -> Result<NodeKey, CredentialsError> {
        KeyPair::from_pem(&self.key_pem).map(NodeKey).map_err(CredentialsError::Key)
    }

    pub(crate) fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// Whether the certificate is of no use any more.
    ///
    /// # Errors
    /// The certificate cannot be parsed.
    pub fn has_expired(&self, now: SystemTime) -> Result<bool, CredentialsError> {
        // Certificates know whole seconds, of which the last one counts.
        self.validity().map(|(_, to)| to + Duration::from_secs(1) <= now)
    }

    /// Who these credentials prove to be.
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// From when to when the certificate is valid.
    ///
    /// # Errors
    /// The certificate cannot be parsed.
    pub fn validity(&self) -> Result<(SystemTime, SystemTime), CredentialsError> {
        let leaf = CertificateDer::from_pem_slice(self.chain_pem.as_bytes())
            .map_err(CredentialsError::NoCertificate)?;
        crate::identity::validity(&leaf).map_err(CredentialsError::Identity)
    }

    /// When the certificate was made; it is valid from a little before.
    ///
    /// # Errors
    /// The certificate cannot be parsed.
    pub fn made_at(&self) -> Result<SystemTime, CredentialsError> {
        self.validity().map(|(from, to)| crate::authority::made_at(from, to))
    }

    /// The cluster's root certificates, PEM; the last one issues.
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// The root that issues.
    ///
    /// # Errors
    /// The root certificates are not PEM.
    pub fn issuing_root(&self) -> Result<RootDigest, CredentialsError> {
        let roots = self.roots()?;
        Ok(RootDigest::of(roots.last().expect("there is one, or these would be no credentials")))
    }

    /// The root that issued the certificate; `None`: one that is not believed any more, or only as its successor's warrant.
    ///
    /// # Errors
    /// A certificate cannot be parsed.
    pub fn issued_by(&self) -> Result<Option<RootDigest>, CredentialsError> {
        let leaf = CertificateDer::from_pem_slice(self.chain_pem.as_bytes())
            .map_err(CredentialsError::NoCertificate)?;
        for root in self.roots()? {
            if is_issued_by(&leaf, &root).map_err(CredentialsError::Identity)? {
                return Ok(Some(RootDigest::of(&root)));
            }
        }
        Ok(None)
    }

    pub(crate) fn roots(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        CertificateDer::pem_slice_iter(self.roots_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(CredentialsError::NoCertificate)
    }

    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        CertificateDer::pem_slice_iter(self.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(CredentialsError::NoCertificate)
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, CredentialsError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(CredentialsError::NoCertificate)
    }

    /// Writes the file durably and atomically. The folder must exist.
    ///
    /// # Errors
    /// The file system failed; the former file, if any, is intact.
    pub fn save(&self, path: &Path) -> Result<(), CredentialsError> {
        self.write(path, &self.key_pem)
    }

    /// [`Self::save`], with what `wrap` makes of the private key in its place.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_wrapped(&self, path: &Path, wrap: impl Fn(&str) -> String) -> Result<(), CredentialsError> {
        self.write(path, &format!("{BEGIN_WRAPPED}\n{}\n{END_WRAPPED}\n", wrap(&self.key_pem)))
    }

    fn write(&self, path: &Path, key: &str) -> Result<(), CredentialsError> {
        let new = path.with_extension("new");
        let text = format!("{key}{}{ROOTS}{}", self.chain_pem, self.roots_pem);
        let written = write_synced(&new, text.as_bytes());
        written.map_err(|source| CredentialsError::File { what: "write", path: new.clone(), source })?;
        let renamed = fs::rename(&new, path).and_then(|()| sync_parent(path));
        renamed.map_err(|source| CredentialsError::File { what: "replace", path: path.to_owned(), source })
    }

    /// Reads what [`Self::save`] wrote; `None` where there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn load(path: &Path) -> Result<Option<Self>, CredentialsError> {
        Self::load_wrapped(path, |_| None)
    }

    /// Reads what [`Self::save_wrapped`] wrote, or [`Self::save`]; `None` where there is no file.
    ///
    /// # Errors
    /// As [`Self::load`], or `unwrap` has no private key for what stands in its place.
    pub fn load_wrapped(
        path: &Path,
        unwrap: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, CredentialsError> {
        let Some(text) = read(path)? else { return Ok(None) };
        let content = |problem| CredentialsError::Content { path: path.to_owned(), problem };
        let (key, chain, roots) = split(&text).map_err(content)?;
        let key = match key.trim().strip_prefix(BEGIN_WRAPPED).and_then(|key| key.strip_suffix(END_WRAPPED)) {
            Some(wrapped) => unwrap(wrapped.trim()).ok_or_else(|| {
                content("its private key is wrapped with a key that this node does not have")
            })?,
            None => key.to_owned(),
        };
        if !key.contains("PRIVATE KEY") {
            return Err(content("it holds no private key"));
        }
        Self::new(key, chain.to_owned(), roots.to_owned()).map(Some)
    }

    /// Who the certificate in a file says that the node is, without its key; `None` where there is no file.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn identity_in(path: &Path) -> Result<Option<NodeIdentity>, CredentialsError> {
        let Some(text) = read(path)? else { return Ok(None) };
        let problem = |problem| CredentialsError::Content { path: path.to_owned(), problem };
        let (_, chain, _) = split(&text).map_err(problem)?;
        let leaf =
            CertificateDer::from_pem_slice(chain.as_bytes()).map_err(CredentialsError::NoCertificate)?;
        NodeIdentity::of(&leaf).map(Some).map_err(CredentialsError::Identity)
    }
}

fn read(path: &Path) -> Result<Option<String>, CredentialsError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CredentialsError::File { what: "read", path: path.to_owned(), source }),
        Ok(_) => Ok(Some(text)),
    }
}

/// Key, chain and root.
pub(crate) fn split(text: &str) -> Result<(&str, &str, &str), &'static str> {
    let chain_at = text.find(BEGIN_CERTIFICATE).ok_or("it holds no certificate")?;
    let (key, rest) = text.split_at(chain_at);
    let (chain, roots) = match rest.split_once(ROOTS) {
        Some(parts) => parts,
        None => rest.split_at(rest.rfind(BEGIN_CERTIFICATE).unwrap_or(0)),
    };
    if chain.is_empty() || !roots.starts_with(BEGIN_CERTIFICATE) {
        return Err("it holds no root certificate");
    }
    Ok((key, chain, roots))
}

const BEGIN_WRAPPED: &str = "-----BEGIN SWARM WRAPPED PRIVATE KEY-----";
const END_WRAPPED: &str = "-----END SWARM WRAPPED PRIVATE KEY-----";
const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Newly made with its mode: the key is never readable by others, not even for a moment.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}
