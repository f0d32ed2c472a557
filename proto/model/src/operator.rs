//! Operators: people and tools that command the cluster from elsewhere, with certificates of their own.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{OperatorId, Timestamp};

/// What an operator may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OperatorRole {
    /// Look, watch, read logs.
    ReadOnly,
    /// Change services, tasks and images.
    Deployer,
    /// Everything, the cluster, its nodes and its operators among it.
    Admin,
}

/// The text is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role: admin, deployer or read-only")]
pub struct ParseRoleError(pub String);

/// An operator as the managers know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorAccount {
    /// In the certificate: another account of the same name is another operator.
    pub id: OperatorId,
    pub name: String,
    pub role: OperatorRole,
    pub created_at: Timestamp,
    /// Who invited them.
    pub created_by: String,
    /// Until the token was used.
    pub invitation: Option<Invitation>,
    /// Since the token was used.
    pub enrolment: Option<Enrolment>,
}

/// A token that may be used once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// SHA-256 of the token's secret: the token itself is nobody's but the operator's.
    pub secret: [u8; 32],
    pub expires_at: Timestamp,
}

/// A token that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The token's, so that who lost the answer may ask again with the same key.
    pub secret: [u8; 32],
    /// SHA-256 of the key that it was used with.
    pub key: [u8; 32],
    pub at: Timestamp,
    /// End of the newest certificate.
    pub valid_until: Timestamp,
}

/// What is kept of an operator that was removed, for as long as a certificate of theirs may be valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedOperator {
    pub name: String,
    pub at: Timestamp,
    pub by: String,
    /// From here on, none of their certificates is valid.
    pub until: Timestamp,
}

/// On whose behalf something is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Of an operator, or `root@host`.
    pub name: String,
    pub role: OperatorRole,
}

impl OperatorRole {
    pub const ALL: [Self; 3] = [Self::ReadOnly, Self::Deployer, Self::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for OperatorRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for OperatorRole {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        let role = Self::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| ParseRoleError(text.chars().take(64).collect()))
    }
}

impl OperatorAccount {
    /// Of an operator's certificate; it is renewed when half of it is over.
    pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// Of a token. Long enough to paste it elsewhere.
    pub const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
    pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

    /// Whether nothing that was given out for this account can be used any more, at `now`.
    pub fn is_lapsed(&self, now: Timestamp) -> bool {
        let invited = self.invitation.as_ref().is_some_and(|invitation| invitation.expires_at > now);
        let enrolled = self.enrolment.as_ref().is_some_and(|enrolment| enrolment.valid_until > now);
        !invited && !enrolled
    }

    /// Letters, digits and `-_.`, so that it stands in a certificate, a table and a command line as it is.
    pub fn is_name(name: &str) -> bool {
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        first
            && name.len() <= 63
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    }
}

impl RemovedOperator {
    /// Clocks of managers may differ by so much.
    const MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

    pub fn new(name: String, by: String, at: Timestamp) -> Self {
        Self { name, at, by, until: at + OperatorAccount::CERTIFICATE_LIFE + Self::MARGIN }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.role)
    }
}
