//! Operators: their certificates (CN = name, OU = `swarm-operator-<role>`, O = cluster id, serial number = account id),
//! the tokens that they are given, and how a key that never leaves their machine gets its certificate.
//!
//! An operator's certificate is a client's only: nobody who dials a manager can be answered with one.

mod credentials;
mod dial;
mod enrol;
mod token;

use rcgen::{DistinguishedName, DnType};
use rustls::pki_types::CertificateDer;
use swarm_model::{ClusterId, OperatorId, OperatorRole};
use x509_parser::oid_registry::OID_X509_SERIALNUMBER;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{IdentityError, single};

pub use credentials::{OperatorCredentials, operator_config};
pub use dial::{OperatorDialler, Unreachable};
pub use enrol::{EnrolError, Enrolled, current_roots, enrol, renew_operator};
pub use token::{OperatorToken, ParseOperatorTokenError};

const UNIT_PREFIX: &str = "swarm-operator-";
/// `id-at-serialNumber`, 2.5.4.5.
const SERIAL_NUMBER: &[u64] = &[2, 5, 4, 5];

/// An operator, as a certificate proves it. The name is for people: what counts is the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorIdentity {
    pub operator: OperatorId,
    pub role: OperatorRole,
    pub cluster: ClusterId,
}

impl OperatorIdentity {
    /// With the name; `None`: the certificate is not an operator's. Reads only: whether it may be believed is the TLS
    /// layer's business.
    ///
    /// # Errors
    /// The certificate is malformed, or an operator's that names none.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Option<(Self, String)>, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| IdentityError::Malformed(Box::new(error)))?;
        let subject = parsed.subject();
        let unit = single("organizational unit", subject.iter_organizational_unit())?;
        let Some(role) = unit.strip_prefix(UNIT_PREFIX) else { return Ok(None) };
        let id = single("serial number", subject.iter_by_oid(&OID_X509_SERIALNUMBER))?;
        let cluster = single("organization", subject.iter_organization())?;
        let name = single("common name", subject.iter_common_name())?;
        let invalid = |what, value: &str| IdentityError::Invalid { what, value: value.to_owned() };
        let identity = Self {
            operator: id.parse().map_err(|_| invalid("serial number", id))?,
            role: role.parse().map_err(|_| invalid("organizational unit", unit))?,
            cluster: cluster.parse().map_err(|_| invalid("organization", cluster))?,
        };
        Ok(Some((identity, name.to_owned())))
    }

    pub(crate) fn distinguished_name(&self, name: &str) -> DistinguishedName {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, self.cluster.to_string());
        subject.push(DnType::OrganizationalUnitName, format!("{UNIT_PREFIX}{}", self.role));
        subject.push(DnType::CommonName, name);
        subject.push(DnType::from_oid(SERIAL_NUMBER), self.operator.to_string());
        subject
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{Authority, NodeKey, SigningRequest};

    #[test]
    fn a_certificate_names_its_operator_and_no_node() {
        let cluster = ClusterId::from_u128(2);
        let now = SystemTime::now();
        let (authority, _) = Authority::generate(cluster, now).unwrap();
        let key = NodeKey::generate().unwrap();
        let request = SigningRequest::parse(&key.request().unwrap()).unwrap();
        let role = OperatorRole::Deployer;
        let identity = OperatorIdentity { operator: OperatorId::from_u128(7), role, cluster };
        let until = now + Duration::from_secs(60);
        let chain = authority.issue_operator(&request, &identity, "alice", now, until).unwrap();
        let credentials =
            OperatorCredentials::new(key.pem(), chain, authority.root_pem().to_owned()).unwrap();
        assert_eq!((*credentials.identity(), credentials.name()), (identity, "alice"));
        assert!(credentials.valid_until().unwrap() <= until);
        let reread = OperatorCredentials::parse(&credentials.to_text()).unwrap();
        assert_eq!(reread.identity(), &identity);
        operator_config(&reread).unwrap();
    }
}
