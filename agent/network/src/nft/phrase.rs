//! Rules put together from the phrases that ours are made of.

use std::net::Ipv4Addr;

use super::expression::{Base, Compare, Conntrack, Lookup, Meta, Nat, Register};
use super::{Expression, Rule, Verdict};

/// First register; single values are compared here.
pub const A: Register = Register(0);
/// Second part of a key or value that begins in [`A`].
pub const B: Register = Register(1);
/// Third part of a key that begins in [`A`].
pub const C: Register = Register(2);

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const STATE_ESTABLISHED: u32 = 1 << 1;
pub const STATE_RELATED: u32 = 1 << 2;
pub const STATE_NEW: u32 = 1 << 3;
const STATUS_DESTINATION_TRANSLATED: u32 = 1 << 5;
const DIRECTION_REPLY: u8 = 1;
const ADDRESS_TYPE_LOCAL: u32 = 2;
/// Length of a device name in the kernel.
const NAME_LENGTH: usize = 16;

/// A rule in the making. Every method appends what its words say.
#[derive(Debug)]
pub struct RuleBuilder(Rule);

/// Begins a rule with its text in the language of `nft`.
pub fn rule(text: impl Into<String>) -> RuleBuilder {
    RuleBuilder(Rule { text: text.into(), expressions: Vec::new() })
}

impl RuleBuilder {
    pub fn finish(self) -> Rule {
        self.0
    }

    pub fn push(mut self, expression: Expression) -> Self {
        self.0.expressions.push(expression);
        self
    }

    pub fn equal(self, register: Register, value: &[u8]) -> Self {
        self.push(Expression::Compare(Compare::Equal, register, value.to_vec()))
    }

    pub fn different(self, register: Register, value: &[u8]) -> Self {
        self.push(Expression::Compare(Compare::Different, register, value.to_vec()))
    }

    /// Keeps the bits of the mask.
    pub fn and(self, register: Register, mask: u32) -> Self {
        self.push(Expression::And(register, mask.to_ne_bytes().to_vec()))
    }

    pub fn zero(self, register: Register) -> Self {
        self.equal(register, &0u32.to_ne_bytes())
    }

    pub fn nonzero(self, register: Register) -> Self {
        self.different(register, &0u32.to_ne_bytes())
    }

    pub fn lookup(self, set: &'static str, key: Register, use_as: Lookup) -> Self {
        self.push(Expression::Lookup { set, key, use_as })
    }

    pub fn verdict(self, verdict: Verdict) -> Self {
        self.push(Expression::Verdict(verdict))
    }

    pub fn meta(self, key: Meta, to: Register) -> Self {
        self.push(Expression::Meta(key, to))
    }

    pub fn iif(self, comparison: Compare, name: &str) -> Self {
        self.device(Meta::IifName, comparison, name)
    }

    pub fn oif(self, comparison: Compare, name: &str) -> Self {
        self.device(Meta::OifName, comparison, name)
    }

    fn device(self, key: Meta, comparison: Compare, name: &str) -> Self {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(NAME_LENGTH, 0);
        self.meta(key, A).push(Expression::Compare(comparison, A, bytes))
    }

    pub fn iif_group(self, comparison: Compare, group: u32) -> Self {
        self.meta(Meta::IifGroup, A).push(Expression::Compare(comparison, A, group.to_ne_bytes().to_vec()))
    }

    pub fn oif_group(self, comparison: Compare, group: u32) -> Self {
        self.meta(Meta::OifGroup, A).push(Expression::Compare(comparison, A, group.to_ne_bytes().to_vec()))
    }

    pub fn protocol(self, number: u8) -> Self {
        self.meta(Meta::L4Proto, A).equal(A, &[number])
    }

    pub fn udp_to(self, port: u16) -> Self {
        self.protocol(UDP).destination_port(A).equal(A, &port.to_be_bytes())
    }

    pub fn source(self, to: Register) -> Self {
        self.push(Expression::Payload { base: Base::Network, offset: 12, length: 4, to })
    }

    pub fn destination(self, to: Register) -> Self {
        self.push(Expression::Payload { base: Base::Network, offset: 16, length: 4, to })
    }

    pub fn destination_port(self, to: Register) -> Self {
        self.push(Expression::Payload { base: Base::Transport, offset: 2, length: 2, to })
    }

    pub fn ether_source(self, to: Register) -> Self {
        self.push(Expression::Payload { base: Base::Link, offset: 6, length: 6, to })
    }

    /// The source is in 127.0.0.0/8.
    pub fn loopback_source(self) -> Self {
        self.push(Expression::Payload { base: Base::Network, offset: 12, length: 1, to: A }).equal(A, &[127])
    }

    /// The destination is in 127.0.0.0/8.
    pub fn loopback_destination(self) -> Self {
        self.push(Expression::Payload { base: Base::Network, offset: 16, length: 1, to: A }).equal(A, &[127])
    }

    /// The destination is an address of this machine.
    pub fn local_destination(self) -> Self {
        self.push(Expression::DestinationType(A)).equal(A, &ADDRESS_TYPE_LOCAL.to_ne_bytes())
    }

    pub fn conntrack(self, key: Conntrack, to: Register) -> Self {
        self.push(Expression::Conntrack(key, to))
    }

    /// The connection's state is one of these.
    pub fn state(self, bits: u32) -> Self {
        self.conntrack(Conntrack::State, A).and(A, bits).nonzero(A)
    }

    pub fn reply(self) -> Self {
        self.conntrack(Conntrack::Direction, A).equal(A, &[DIRECTION_REPLY])
    }

    /// The connection's destination has been translated.
    pub fn translated(self) -> Self {
        self.conntrack(Conntrack::Status, A).and(A, STATUS_DESTINATION_TRANSLATED).nonzero(A)
    }

    /// Protocol in [`A`], destination port in [`B`]: the key of every map of ports.
    pub fn protocol_and_port(self) -> Self {
        self.meta(Meta::L4Proto, A).destination_port(B)
    }

    /// Sets the source to a fixed address.
    pub fn snat(self, to: Ipv4Addr) -> Self {
        self.push(Expression::Immediate(A, to.octets().to_vec())).push(Expression::Nat {
            kind: Nat::Source,
            address: A,
            port: None,
        })
    }

    /// Sets the destination to the address in [`A`]; the port stays.
    pub fn dnat_address(self) -> Self {
        self.push(Expression::Nat { kind: Nat::Destination, address: A, port: None })
    }

    /// Sets the destination to the address in [`A`] and the port in [`B`].
    pub fn dnat_endpoint(self) -> Self {
        self.push(Expression::Nat { kind: Nat::Destination, address: A, port: Some(B) })
    }
}
