//! Expressions: the instructions that rules are made of.

use crate::netlink::Attributes;

/// Where the value of an expression goes: one of sixteen cells of four bytes. Longer values take several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    const fn number(self) -> u32 {
        // NFT_REG32_00 is 8.
        8 + self.0 as u32
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Drop,
    Accept,
}

impl Verdict {
    const fn code(self) -> u32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
        }
    }
}

/// Facts about a packet that are not in it (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Meta {
    Mark = 3,
    IifName = 6,
    OifName = 7,
    L4Proto = 16,
    IifGroup = 21,
    OifGroup = 22,
}

/// Facts about a packet's connection (`enum nft_ct_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Conntrack {
    State = 0,
    Direction = 1,
    Status = 2,
    Mark = 3,
    Zone = 17,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Compare {
    Equal = 0,
    Different = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// A random number below the count.
    Random(u32),
    /// Always zero (`numgen inc mod 1`).
    Zero,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    TcpReset,
    PortUnreachable,
}

/// What a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The rule goes on if the key is in the set.
    Member,
    /// The rule goes on if the key is not in the set.
    NoMember,
    /// The rule goes on with the map's value in a register, if the key is in the map.
    Value(Register),
    /// The map's value is the verdict.
    Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Meta(Meta, Register),
    SetMeta(Meta, Register),
    Conntrack(Conntrack, Register),
    /// Sets a fact of the connection, `direction` 0 for that of the original direction alone.
    SetConntrack {
        key: Conntrack,
        direction: Option<u8>,
        from: Register,
    },
    Payload {
        base: Base,
        offset: u32,
        length: u32,
        to: Register,
    },
    SetPayload {
        base: Base,
        offset: u32,
        length: u32,
        from: Register,
    },
    Compare(Compare, Register, Vec<u8>),
    /// Keeps the bits of the mask, in place.
    And(Register, Vec<u8>),
    Lookup {
        set: &'static str,
        key: Register,
        use_as: Lookup,
    },
    Immediate(Register, Vec<u8>),
    Verdict(Verdict),
    Spread(Spread, Register),
    Nat {
        kind: Nat,
        address: Register,
        port: Option<Register>,
    },
    Masquerade,
    /// Type of the packet's destination address (local, unicast …).
    DestinationType(Register),
    Reject(Refusal),
    /// Largest TCP segment that fits the packet's route, in host byte order.
    RouteMaxSegment(Register),
    /// Host to network byte order, two bytes in place.
    ToNetworkOrder(Register),
    /// Lowers the TCP option for the largest segment to the register's value.
    SetMaxSegment(Register),
}

// Attribute numbers of linux/netfilter/nf_tables.h, by expression.
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;
const REGISTER_VERDICT: u32 = 0;
const FIB_FLAG_DESTINATION: u32 = 1 << 1;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const LOOKUP_FLAG_INVERT: u32 = 1;
const NFPROTO_IPV4: u32 = 2;
const TCPOPT: u32 = 1;
const TCPOPT_MAXSEG: u8 = 2;
const RT_TCPMSS: u32 = 3;
const BYTEORDER_HTON: u32 = 1;
const REJECT_ICMP_UNREACH: u32 = 0;
const REJECT_TCP_RESET: u32 = 1;
const ICMP_PORT_UNREACHABLE: u8 = 3;

impl Expression {
    /// The kernel's name of the expression, which is also the name of what it may lack.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Meta(..) | Self::SetMeta(..) => "meta",
            Self::Conntrack(..) | Self::SetConntrack { .. } => "ct",
            Self::Payload { .. } | Self::SetPayload { .. } => "payload",
            Self::Compare(..) => "cmp",
            Self::And(..) => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Immediate(..) | Self::Verdict(_) => "immediate",
            Self::Spread(..) => "numgen",
            Self::Nat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::DestinationType(_) => "fib",
            Self::Reject(_) => "reject",
            Self::RouteMaxSegment(_) => "rt",
            Self::ToNetworkOrder(_) => "byteorder",
            Self::SetMaxSegment(_) => "exthdr",
        }
    }

    /// Appends the expression to the list of a rule.
    pub(super) fn encode(&self, list: &mut Attributes<'_>) {
        const LIST_ELEM: u16 = 1;
        list.nest(LIST_ELEM, |a| {
            a.text(EXPR_NAME, self.name());
            a.nest(EXPR_DATA, |a| self.encode_data(a));
        });
    }

    #[expect(clippy::too_many_lines, reason = "one arm per expression; splitting them would hide the table")]
    fn encode_data(&self, a: &mut Attributes<'_>) {
        match self {
            Self::Meta(key, to) => {
                a.be32(1, to.number());
                a.be32(2, *key as u32);
            }
            Self::SetMeta(key, from) => {
                a.be32(2, *key as u32);
                a.be32(3, from.number());
            }
            Self::Conntrack(key, to) => {
                a.be32(1, to.number());
                a.be32(2, *key as u32);
            }
            Self::SetConntrack { key, direction, from } => {
                a.be32(2, *key as u32);
                if let Some(direction) = direction {
                    a.u8(3, *direction);
                }
                a.be32(4, from.number());
            }
            Self::Payload { base, offset, length, to } => {
                a.be32(1, to.number());
                a.be32(2, *base as u32);
                a.be32(3, *offset);
                a.be32(4, *length);
            }
            Self::SetPayload { base, offset, length, from } => {
                a.be32(2, *base as u32);
                a.be32(3, *offset);
                a.be32(4, *length);
                a.be32(5, from.number());
                a.be32(6, 0); // No checksum to mend.
            }
            Self::Compare(comparison, register, value) => {
                a.be32(1, register.number());
                a.be32(2, *comparison as u32);
                a.nest(3, |a| a.bytes(DATA_VALUE, value));
            }
            Self::And(register, mask) => {
                a.be32(1, register.number());
                a.be32(2, register.number());
                a.be32(3, u32::try_from(mask.len()).expect("a mask has a few bytes"));
                a.nest(4, |a| a.bytes(DATA_VALUE, mask));
                a.nest(5, |a| a.bytes(DATA_VALUE, &vec![0; mask.len()]));
            }
            Self::Lookup { set, key, use_as } => {
                a.text(1, set);
                a.be32(2, key.number());
                match use_as {
                    Lookup::Member => {}
                    Lookup::NoMember => a.be32(5, LOOKUP_FLAG_INVERT),
                    Lookup::Value(to) => a.be32(3, to.number()),
                    Lookup::Verdict => a.be32(3, REGISTER_VERDICT),
                }
            }
            Self::Immediate(to, value) => {
                a.be32(1, to.number());
                a.nest(2, |a| a.bytes(DATA_VALUE, value));
            }
            Self::Verdict(verdict) => {
                a.be32(1, REGISTER_VERDICT);
                a.nest(2, |a| a.nest(DATA_VERDICT, |a| a.be32(VERDICT_CODE, verdict.code())));
            }
            Self::Spread(spread, to) => {
                let (kind, count) = match spread {
                    Spread::Zero => (0, 1),
                    Spread::Random(count) => (1, *count),
                };
                a.be32(1, to.number());
                a.be32(2, count);
                a.be32(3, kind);
            }
            Self::Nat { kind, address, port } => {
                a.be32(1, u32::from(*kind == Nat::Destination));
                a.be32(2, NFPROTO_IPV4);
                a.be32(3, address.number());
                if let Some(port) = port {
                    a.be32(5, port.number());
                }
            }
            Self::Masquerade => {}
            Self::DestinationType(to) => {
                a.be32(1, to.number());
                a.be32(2, FIB_RESULT_ADDRESS_TYPE);
                a.be32(3, FIB_FLAG_DESTINATION);
            }
            Self::Reject(Refusal::TcpReset) => {
                a.be32(1, REJECT_TCP_RESET);
                a.u8(2, 0);
            }
            Self::Reject(Refusal::PortUnreachable) => {
                a.be32(1, REJECT_ICMP_UNREACH);
                a.u8(2, ICMP_PORT_UNREACHABLE);
            }
            Self::RouteMaxSegment(to) => {
                a.be32(1, to.number());
                a.be32(2, RT_TCPMSS);
            }
            Self::ToNetworkOrder(register) => {
                a.be32(1, register.number());
                a.be32(2, register.number());
                a.be32(3, BYTEORDER_HTON);
                a.be32(4, 2);
                a.be32(5, 2);
            }
            Self::SetMaxSegment(from) => {
                a.u8(2, TCPOPT_MAXSEG);
                a.be32(3, 2);
                a.be32(4, 2);
                a.be32(6, TCPOPT);
                a.be32(7, from.number());
            }
        }
    }
}
