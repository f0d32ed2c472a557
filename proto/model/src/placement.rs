//! Placement: constraints, spread preferences, platforms. Parsed once, when a spec enters; never text behind the door.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{Node, NodeRole, Platform};

/// Longest constraint text accepted, in bytes.
const MAX_LENGTH: usize = 512;

/// All a spec says about where its tasks may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// All must hold.
    pub constraints: Vec<Constraint>,
    /// Spread over the values of these labels, the first one outermost.
    pub preferences: Vec<SpreadBy>,
    /// `None`: no limit.
    pub max_replicas_per_node: Option<u32>,
    /// Platforms that the image exists for; empty: any.
    pub platforms: Vec<Platform>,
}

/// `spread=node.labels.KEY`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SpreadBy {
    NodeLabel(String),
    EngineLabel(String),
}

/// `KEY==VALUE` or `KEY!=VALUE`. Values compare whole and without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Constraint {
    pub key: ConstraintKey,
    pub operator: Operator,
    pub value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    Equal,
    NotEqual,
}

/// What a constraint looks at. Label keys are case-sensitive; a missing label is the empty string.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConstraintKey {
    NodeId,
    NodeHostname,
    /// An address or a CIDR block.
    NodeIp,
    NodeRole,
    PlatformOs,
    PlatformArch,
    NodeLabel(String),
    EngineLabel(String),
}

/// Why a constraint or a preference was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    #[error("constraint {0:?} has no operator: write KEY==VALUE or KEY!=VALUE")]
    NoOperator(String),
    #[error(
        "constraint {text:?}: unknown key {key:?}; known keys are node.id, node.hostname, node.ip, node.role, \
         node.platform.os, node.platform.arch, node.labels.KEY and engine.labels.KEY"
    )]
    UnknownKey { text: String, key: String },
    #[error("constraint {text:?}: value {value:?} is empty or has characters that no node value can have")]
    BadValue { text: String, value: String },
    #[error("constraint {text:?}: {value:?} is neither an address nor a CIDR block")]
    BadAddress { text: String, value: String },
    #[error("constraint {text:?}: a role is manager or worker, not {value:?}")]
    BadRole { text: String, value: String },
    #[error("a constraint is longer than 512 bytes")]
    TooLong,
    #[error(
        "placement preference {0:?} is not of the form spread=node.labels.KEY or spread=engine.labels.KEY"
    )]
    BadPreference(String),
}

impl Constraint {
    /// Parses one constraint; splits at the first `==`, else at the first `!=`; both sides are trimmed.
    ///
    /// # Errors
    /// Names the part that is wrong; an unknown key is refused (Swarm accepts it and never places the task).
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        if text.len() > MAX_LENGTH {
            return Err(ConstraintError::TooLong);
        }
        let (key, operator, value) = match (text.split_once("=="), text.split_once("!=")) {
            (Some((key, value)), _) => (key.trim(), Operator::Equal, value.trim()),
            (None, Some((key, value))) => (key.trim(), Operator::NotEqual, value.trim()),
            (None, None) => return Err(ConstraintError::NoOperator(text.to_owned())),
        };
        let constraint = Self {
            key: ConstraintKey::parse(key)
                .ok_or_else(|| ConstraintError::UnknownKey { text: text.to_owned(), key: key.to_owned() })?,
            operator,
            value: value.to_owned(),
        };
        constraint.check_value(text)?;
        Ok(constraint)
    }

    fn check_value(&self, text: &str) -> Result<(), ConstraintError> {
        let (text, value) = (text.to_owned(), self.value.clone());
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":-_.*()?+[]\\^$|/".contains(c);
        if value.is_empty() || !value.chars().all(allowed) {
            return Err(ConstraintError::BadValue { text, value });
        }
        match self.key {
            ConstraintKey::NodeIp if parse_block(&value).is_none() => {
                Err(ConstraintError::BadAddress { text, value })
            }
            ConstraintKey::NodeRole
                if !["manager", "worker"].contains(&value.to_ascii_lowercase().as_str()) =>
            {
                Err(ConstraintError::BadRole { text, value })
            }
            ConstraintKey::NodeId
            | ConstraintKey::NodeHostname
            | ConstraintKey::NodeIp
            | ConstraintKey::NodeRole
            | ConstraintKey::PlatformOs
            | ConstraintKey::PlatformArch
            | ConstraintKey::NodeLabel(_)
            | ConstraintKey::EngineLabel(_) => Ok(()),
        }
    }

    /// Whether `node` satisfies the constraint.
    pub fn matches(&self, node: &Node) -> bool {
        let same = |actual: &str| actual.eq_ignore_ascii_case(&self.value);
        let label = |value: Option<&String>| same(value.map_or("", String::as_str));
        let holds = match &self.key {
            ConstraintKey::NodeId => same(&node.id.to_string()),
            ConstraintKey::NodeHostname => same(&node.engine.hostname),
            ConstraintKey::NodeIp => {
                parse_block(&self.value).is_some_and(|block| block.contains(&node.engine.data_address))
            }
            ConstraintKey::NodeRole => same(match node.spec.role {
                NodeRole::Manager => "manager",
                NodeRole::Worker => "worker",
            }),
            ConstraintKey::PlatformOs => same(&node.engine.platform.os),
            ConstraintKey::PlatformArch => {
                Platform::canonical_arch(&node.engine.platform.arch) == Platform::canonical_arch(&self.value)
            }
            ConstraintKey::NodeLabel(key) => label(node.spec.labels.get(key)),
            ConstraintKey::EngineLabel(key) => label(node.engine.labels.get(key)),
        };
        match self.operator {
            Operator::Equal => holds,
            Operator::NotEqual => !holds,
        }
    }
}

impl ConstraintKey {
    fn parse(key: &str) -> Option<Self> {
        let lower = key.to_ascii_lowercase();
        let label = |prefix: &str| {
            lower.starts_with(prefix).then(|| key[prefix.len()..].to_owned()).filter(|k| label_key(k))
        };
        match lower.as_str() {
            "node.id" => Some(Self::NodeId),
            "node.hostname" => Some(Self::NodeHostname),
            "node.ip" => Some(Self::NodeIp),
            "node.role" => Some(Self::NodeRole),
            "node.platform.os" => Some(Self::PlatformOs),
            "node.platform.arch" => Some(Self::PlatformArch),
            _ => label("node.labels.")
                .map(Self::NodeLabel)
                .or_else(|| label("engine.labels.").map(Self::EngineLabel)),
        }
    }
}

impl SpreadBy {
    /// Parses `spread=node.labels.KEY`.
    ///
    /// # Errors
    /// Any other form.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let key = text.strip_prefix("spread=").map(str::trim).and_then(ConstraintKey::parse);
        match key {
            Some(ConstraintKey::NodeLabel(key)) => Ok(Self::NodeLabel(key)),
            Some(ConstraintKey::EngineLabel(key)) => Ok(Self::EngineLabel(key)),
            _ => Err(ConstraintError::BadPreference(text.chars().take(MAX_LENGTH).collect())),
        }
    }
}

fn label_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

fn parse_block(text: &str) -> Option<Ipv4Net> {
    text.parse().ok().or_else(|| text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from))
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
        };
        write!(f, "{}{operator}{}", self.key, self.value)
    }
}

impl fmt::Display for ConstraintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeId => f.write_str("node.id"),
            Self::NodeHostname => f.write_str("node.hostname"),
            Self::NodeIp => f.write_str("node.ip"),
            Self::NodeRole => f.write_str("node.role"),
            Self::PlatformOs => f.write_str("node.platform.os"),
            Self::PlatformArch => f.write_str("node.platform.arch"),
            Self::NodeLabel(key) => write!(f, "node.labels.{key}"),
            Self::EngineLabel(key) => write!(f, "engine.labels.{key}"),
        }
    }
}

impl fmt::Display for SpreadBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeLabel(key) => write!(f, "spread=node.labels.{key}"),
            Self::EngineLabel(key) => write!(f, "spread=engine.labels.{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let shown = match Constraint::parse(text) {
            Ok(constraint) => constraint.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(shown.starts_with(expect), "{text:?} gave {shown:?}, expected {expect:?}");
    }

    #[test]
    fn constraints_parse_as_in_swarm() {
        check("node.role==manager", "node.role==manager");
        check(" Node.Hostname != a b ", "node.hostname!=a b");
        check("node.labels.Zone==x!=y", "constraint \"node.labels.Zone==x!=y\": value");
        check("node.labels.Zone==x", "node.labels.Zone==x");
        check("node.ip==10.0.0.0/8", "node.ip==10.0.0.0/8");
    }

    #[test]
    fn what_cannot_match_is_refused_with_the_reason() {
        check("node.role", "constraint \"node.role\" has no operator");
        check(
            "node.rol==manager",
            "constraint \"node.rol==manager\": unknown key \"node.rol\"; known keys are",
        );
        check("node.labels.==x", "constraint \"node.labels.==x\": unknown key");
        check("node.role==boss", "constraint \"node.role==boss\": a role is manager or worker");
        check("node.ip==ten", "constraint \"node.ip==ten\": \"ten\" is neither");
        check("node.id==", "constraint \"node.id==\": value \"\"");
    }
}
