//! The cluster's certificate authority: a root, made at `cluster init` or by a rotation, that signs node certificates.
//! While a new root takes over, it is vouched for by the old one, so that who knows only that believes its certificates.
//!
//! Of a signing request only the public key is believed, after its proof of possession; every name is the authority's.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use swarm_model::ClusterId;

use crate::identity::NodeIdentity;
use crate::operator::OperatorIdentity;
use crate::token::RootDigest;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// Certificates are valid from before they were made, for nodes whose clocks are behind; a short-lived one by as much as
/// its life.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// A request with a P-256 key has about 500 bytes in PEM.
const MAX_REQUEST_BYTES: usize = 8 << 10;
/// A leaf with an intermediate has under 2 KiB in PEM.
const MAX_CHAIN_BYTES: usize = 16 << 10;

/// The root certificate with its key. Exists on managers only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    /// This root, signed by the one that it replaces, PEM; goes along with every certificate.
    cross_signed: Option<String>,
}

/// A signing request whose sender holds the private key.
pub struct SigningRequest(CertificateSigningRequestParams);

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot make the root certificate")]
    Make(#[source] rcgen::Error),
    #[error("the root certificate and its key cannot be read")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the signing request is {0} bytes long, at most {MAX_REQUEST_BYTES} are allowed")]
    RequestTooLong(usize),
    #[error("the signing request is not valid")]
    Request(#[source] rcgen::Error),
    #[error("the signing request's key is not ECDSA P-256")]
    KeyKind,
    #[error("cannot sign the operator's certificate")]
    SignOperator(#[source] rcgen::Error),
    #[error("cannot sign the certificate of node {node}")]
    Sign {
        node: swarm_model::NodeId,
        #[source]
        source: rcgen::Error,
    },
}

impl Authority {
    /// A new root for a new cluster; also its key in PKCS#8 PEM, to be stored with the cluster.
    ///
    /// # Errors
    /// The cryptographic provider failed.
    pub fn generate(cluster: ClusterId, now: SystemTime) -> Result<(Self, String), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Make)?;
        let key_pem = key.serialize_pem();
        let params = root_params(cluster, now);
        let certificate = params.self_signed(&key).map_err(AuthorityError::Make)?;
        let certificate_pem = certificate.pem();
        let authority = Self {
            issuer: Issuer::new(params, key),
            certificate: certificate.into(),
            certificate_pem,
            cross_signed: None,
        };
        Ok((authority, key_pem))
    }

    /// Signs `new`, the root that is to replace this one. PEM, for [`Self::vouched_for`].
    ///
    /// # Errors
    /// The cryptographic provider failed.
    pub fn cross_sign(
        &self,
        new: &Self,
        cluster: ClusterId,
        now: SystemTime,
    ) -> Result<String, AuthorityError> {
        let mut params = root_params(cluster, now);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(new.issuer.key(), &self.issuer).map_err(AuthorityError::Make)?;
        Ok(signed.pem())
    }

    /// This root's certificates are sent along with what its predecessor signed of it.
    #[must_use]
    pub fn vouched_for(self, cross_signed: String) -> Self {
        Self { cross_signed: Some(cross_signed), ..self }
    }

    /// From what [`Self::generate`] made.
    ///
    /// # Errors
    /// One of them is not PEM of the right kind.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| AuthorityError::Load(Box::new(error)))?;
        let load = |error: rcgen::Error| AuthorityError::Load(Box::new(error));
        let key = KeyPair::from_pem(key_pem).map_err(load)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(load)?;
        Ok(Self { issuer, certificate, certificate_pem: certificate_pem.to_owned(), cross_signed: None })
    }

    /// The root certificate, PEM.
    pub fn root_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What join tokens pin.
    pub fn root_digest(&self) -> RootDigest {
        RootDigest::of(&self.certificate)
    }

    /// Signs the request's key for `identity`, for `life` from `now` on; PEM, leaf first.
    ///
    /// # Errors
    /// The cryptographic provider failed.
    pub fn issue(
        &self,
        request: &SigningRequest,
        identity: &NodeIdentity,
        now: SystemTime,
        life: Duration,
    ) -> Result<String, AuthorityError> {
        let sign = |source| AuthorityError::Sign { node: identity.node, source };
        let mut params = CertificateParams::default();
        params.distinguished_name = identity.distinguished_name();
        for name in identity.server_names() {
            params.subject_alt_names.push(SanType::DnsName(name.try_into().map_err(sign)?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, now, life);
        let leaf = params.signed_by(&request.0.public_key, &self.issuer).map_err(sign)?.pem();
        Ok(leaf + self.cross_signed.as_deref().unwrap_or_default())
    }

    /// Signs the request's key for the operator called `name`, until `until`; PEM, leaf first. No server may prove
    /// itself with it.
    ///
    /// # Errors
    /// The cryptographic provider failed.
    pub fn issue_operator(
        &self,
        request: &SigningRequest,
        identity: &OperatorIdentity,
        name: &str,
        now: SystemTime,
        until: SystemTime,
    ) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = identity.distinguished_name(name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, now, until.duration_since(now).unwrap_or_default());
        let signed = params.signed_by(&request.0.public_key, &self.issuer);
        let leaf = signed.map_err(AuthorityError::SignOperator)?.pem();
        Ok(leaf + self.cross_signed.as_deref().unwrap_or_default())
    }
}

impl SigningRequest {
    /// Parses PKCS#10 in PEM and checks that the sender holds the key.
    ///
    /// # Errors
    /// It is too long, malformed, wrongly signed, or of another kind of key.
    pub fn parse(pem: &str) -> Result<Self, AuthorityError> {
        if pem.len() > MAX_REQUEST_BYTES {
            return Err(AuthorityError::RequestTooLong(pem.len()));
        }
        let request = CertificateSigningRequestParams::from_pem(pem).map_err(AuthorityError::Request)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(AuthorityError::KeyKind);
        }
        Ok(Self(request))
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo in DER).
    pub fn key_digest(&self) -> [u8; 32] {
        let key = self.0.public_key.subject_public_key_info();
        let digest = ring::digest::digest(&ring::digest::SHA256, &key);
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// The member that `chain_pem` names, though its certificate may have expired: one of `roots_pem` vouches for it, and it is
/// of the key that signed `request`.
///
/// # Errors
/// It is malformed, of another cluster's root, or of another key.
pub fn former_member(
    chain_pem: &str,
    request: &SigningRequest,
    roots_pem: &str,
) -> Result<NodeIdentity, FormerError> {
    if chain_pem.len() > MAX_CHAIN_BYTES {
        return Err(FormerError::TooLong(chain_pem.len()));
    }
    let pem = |text: &str| {
        CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(FormerError::Pem)
    };
    let (chain, roots) = (pem(chain_pem)?, crate::tls::roots(pem(roots_pem)?).map_err(FormerError::Roots)?);
    let (leaf, intermediates) = chain.split_first().ok_or(FormerError::Empty)?;
    let (from, _) = crate::identity::validity(leaf).map_err(FormerError::Identity)?;
    let then = UnixTime::since_unix_epoch(from.duration_since(UNIX_EPOCH).unwrap_or_default());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider()).build();
    let verified = verifier.map_err(FormerError::Verifier)?.verify_client_cert(leaf, intermediates, then);
    verified.map_err(FormerError::Unknown)?;
    let key = request.0.public_key.subject_public_key_info();
    if crate::identity::public_key(leaf).map_err(FormerError::Identity)? != key {
        return Err(FormerError::OtherKey);
    }
    NodeIdentity::of(leaf).map_err(FormerError::Identity)
}

/// Why a certificate does not prove a former member.
#[derive(Debug, thiserror::Error)]
pub enum FormerError {
    #[error("it is {0} bytes long, at most {MAX_CHAIN_BYTES} are allowed")]
    TooLong(usize),
    #[error("it is not PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("there is none")]
    Empty,
    #[error("the cluster's roots cannot be used")]
    Roots(#[source] crate::tls::TlsError),
    #[error("the cluster's roots cannot be used")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("the cluster's root did not issue it")]
    Unknown(#[source] rustls::Error),
    #[error("it is not of the key that signed the request")]
    OtherKey,
    #[error("it names no member of a cluster")]
    Identity(#[source] crate::identity::IdentityError),
}

fn root_params(cluster: ClusterId, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
    params.distinguished_name.push(DnType::CommonName, "swarm-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, now, ROOT_LIFE);
    params
}

/// When a certificate was made, of its validity.
pub(crate) fn made_at(from: SystemTime, to: SystemTime) -> SystemTime {
    let whole = to.duration_since(from).unwrap_or_default();
    from + BACKDATED.min(whole / 2)
}

fn set_life(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // A clock before 1971 has no better answer than a certificate from the epoch on.
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().max(DAY);
    params.not_before = epoch + (now - BACKDATED.min(life));
    params.not_after = epoch + (now + life);
}
