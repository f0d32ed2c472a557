//! The identity that a certificate states: CN = node id, OU = role, O = cluster id (SwarmKit's form).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{DistinguishedName, DnType};
use rustls::pki_types::CertificateDer;
use swarm_model::{ClusterId, NodeId, NodeRole};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

const MANAGER_UNIT: &str = "swarm-manager";
const WORKER_UNIT: &str = "swarm-worker";

/// A member of a cluster, as its certificate names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIdentity {
    pub node: NodeId,
    pub role: NodeRole,
    pub cluster: ClusterId,
}

/// Why a certificate names no member.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate cannot be parsed")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the certificate has no single {0}")]
    Missing(&'static str),
    #[error("the certificate's {what} is {value:?}")]
    Invalid { what: &'static str, value: String },
}

impl NodeIdentity {
    /// Reads the names only: whether the certificate may be believed is the TLS layer's business.
    ///
    /// # Errors
    /// The certificate is malformed or names no node.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| IdentityError::Malformed(Box::new(error)))?;
        let subject = parsed.subject();
        let node = single("common name", subject.iter_common_name())?;
        let unit = single("organizational unit", subject.iter_organizational_unit())?;
        let cluster = single("organization", subject.iter_organization())?;
        let invalid = |what, value: &str| IdentityError::Invalid { what, value: value.to_owned() };
        Ok(Self {
            node: node.parse().map_err(|_| invalid("common name", node))?,
            role: role_of_unit(unit).ok_or_else(|| invalid("organizational unit", unit))?,
            cluster: cluster.parse().map_err(|_| invalid("organization", cluster))?,
        })
    }

    pub(crate) fn distinguished_name(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, self.cluster.to_string());
        name.push(DnType::OrganizationalUnitName, unit_of_role(self.role));
        name.push(DnType::CommonName, self.node.to_string());
        name
    }

    /// Names that a dialler may ask for. Only a manager's certificate has `swarm-manager`, so whoever dials that name
    /// reaches a manager of its own cluster or nobody.
    pub(crate) fn server_names(&self) -> [String; 2] {
        let unit = unit_of_role(self.role);
        [unit.to_owned(), format!("{}.{unit}", self.node)]
    }
}

/// From when to when a certificate is valid.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), IdentityError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| IdentityError::Malformed(Box::new(error)))?;
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = parsed.validity();
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

/// SubjectPublicKeyInfo, DER.
pub(crate) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, IdentityError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| IdentityError::Malformed(Box::new(error)))?;
    Ok(parsed.public_key().raw.to_vec())
}

/// Whether a certificate names `issuer`'s key as the one that signed it. It says so itself: whether that is true is the TLS
/// layer's business.
pub(crate) fn is_issued_by(
    certificate: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
) -> Result<bool, IdentityError> {
    let parse = |der| {
        X509Certificate::from_der(der)
            .map(|(_, parsed)| parsed)
            .map_err(|error| IdentityError::Malformed(Box::new(error)))
    };
    let (certificate, issuer) = (parse(certificate)?, parse(issuer)?);
    let named = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(named) => named.key_identifier.clone(),
        _ => None,
    });
    let own = issuer.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(own) => Some(own.clone()),
        _ => None,
    });
    Ok(named.is_some() && named == own)
}

/// The server name by which any manager is dialled, or exactly the one that is `node`.
pub(crate) fn manager_name(node: Option<NodeId>) -> String {
    match node {
        None => MANAGER_UNIT.to_owned(),
        Some(node) => format!("{node}.{MANAGER_UNIT}"),
    }
}

fn unit_of_role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Manager => MANAGER_UNIT,
        NodeRole::Worker => WORKER_UNIT,
    }
}

fn role_of_unit(unit: &str) -> Option<NodeRole> {
    [NodeRole::Manager, NodeRole::Worker].into_iter().find(|role| unit_of_role(*role) == unit)
}

pub(crate) fn single<'a>(
    what: &'static str,
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Result<&'a str, IdentityError> {
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_str().map_err(|_| IdentityError::Missing(what)),
        _ => Err(IdentityError::Missing(what)),
    }
}
