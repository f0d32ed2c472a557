//! Tables as values: what a table of ours consists of, apart from the kernel.

use super::Expression;
use super::phrase::RuleBuilder;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    Ipv4 = 2,
    Netdev = 5,
}

impl Family {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Netdev => "netdev",
        }
    }
}

/// A table with everything in it but elements.
#[derive(Debug, Clone)]
pub struct Table {
    pub family: Family,
    pub name: String,
    /// Shown by `nft list`; also tells later whose table it is.
    pub comment: String,
    pub sets: Vec<Set>,
    pub chains: Vec<Chain>,
}

/// A set, or a map if it has values.
#[derive(Debug, Clone)]
pub struct Set {
    pub name: &'static str,
    pub key: &'static [Field],
    pub value: SetValue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetValue {
    None,
    Fields(&'static [Field]),
    Verdict,
}

/// A part of a key or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Ipv4,
    Ether,
    Protocol,
    Port,
    Mark,
    /// A number in the host's byte order. Listed by `nft` like a mark, which is the only such type that it can list.
    Index,
    /// Conntrack zone.
    Zone,
}

impl Field {
    /// Length in bytes.
    pub const fn length(self) -> usize {
        match self {
            Self::Protocol => 1,
            Self::Port | Self::Zone => 2,
            Self::Ipv4 | Self::Mark | Self::Index => 4,
            Self::Ether => 6,
        }
    }

    /// Whether the kernel keeps it in the host's byte order.
    pub(super) const fn is_host_order(self) -> bool {
        match self {
            Self::Mark | Self::Index | Self::Zone => true,
            Self::Ipv4 | Self::Ether | Self::Protocol | Self::Port => false,
        }
    }

    /// Number of the type in the `nft` tool (libnftables `enum datatypes`); the kernel only keeps it.
    const fn datatype(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ether => 9,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark | Self::Index => 19,
            Self::Zone => 4,
        }
    }

    /// Length of several fields: each begins at a multiple of four bytes.
    pub fn total_length(fields: &[Self]) -> usize {
        match fields {
            [one] => one.length(),
            many => many.iter().map(|field| field.length().next_multiple_of(4)).sum(),
        }
    }

    /// Type number of several fields, six bits each.
    pub(super) fn total_datatype(fields: &[Self]) -> u32 {
        fields.iter().fold(0, |number, field| number << 6 | field.datatype())
    }
}

/// One element of a set or map, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub value: ElementValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementValue {
    None,
    Bytes(Vec<u8>),
    /// Continue in that chain, without coming back.
    Goto(String),
}

/// Joins fields as the kernel compares them: each padded to four bytes.
pub fn concatenate(fields: &[&[u8]]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(fields.len() * 4);
    for field in fields {
        joined.extend_from_slice(field);
        joined.resize(joined.len().next_multiple_of(4), 0);
    }
    joined
}

#[derive(Debug, Clone)]
pub struct Chain {
    pub name: String,
    /// Where packets enter; `None`: only from other chains.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that packets enter from a hook.
    pub fn base(
        name: &str,
        kind: &'static str,
        point: HookPoint,
        priority: i32,
        rules: impl IntoIterator<Item = RuleBuilder>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            hook: Some(Hook { kind, point, priority }),
            rules: rules.into_iter().map(RuleBuilder::finish).collect(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Hook {
    pub kind: &'static str,
    pub point: HookPoint,
    pub priority: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    /// On the way out of a device.
    Egress(String),
}

impl HookPoint {
    /// The kernel's number of the hook in its family.
    pub(super) const fn number(&self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input | Self::Egress(_) => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }

    pub const fn word(&self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress(_) => "egress",
        }
    }
}

/// A rule with its text in the language of `nft`, for errors and dumps.
#[derive(Debug, Clone)]
pub struct Rule {
    pub text: String,
    pub expressions: Vec<Expression>,
}
