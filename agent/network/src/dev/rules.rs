//! The rules of this machine for a development network.
//!
//! The nodes reach the outside with this machine's address; published ports of the loopback and the bridge address lead
//! to the nodes. No other address and no other port of the machine is touched.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use swarm_model::Protocol;

use super::{BRIDGE_GROUP, DevName};
use crate::nft::expression::{Compare, Lookup, Spread};
use crate::nft::phrase::{A, rule};
use crate::nft::table::{ElementValue, Field, HookPoint, SetValue, concatenate};
use crate::nft::{Chain, Element, Expression, Family, Set, Table, Transaction, Verdict};
use crate::node::number;

const PORTS: &str = "ports";
const NODES: &str = "nodes";

pub struct Rules<'a> {
    pub name: &'a DevName,
    pub subnet: Ipv4Net,
    pub host: Ipv4Addr,
    /// Data addresses of the nodes that can be reached.
    pub nodes: Vec<Ipv4Addr>,
    pub ports: &'a BTreeSet<(Protocol, u16)>,
}

impl Rules<'_> {
    /// Replaces whatever rules there are for this network.
    pub fn transaction(&self) -> Transaction {
        let table = self.table();
        let mut transaction = Transaction::new();
        transaction.replace_table(&table);
        let ports: Vec<Element> = self
            .ports
            .iter()
            .map(|&(protocol, port)| Element {
                key: concatenate(&[&[number(protocol)], &port.to_be_bytes()]),
                value: ElementValue::None,
            })
            .collect();
        let nodes: Vec<Element> = (0u32..)
            .zip(&self.nodes)
            .map(|(slot, node)| Element {
                key: slot.to_ne_bytes().to_vec(),
                value: ElementValue::Bytes(node.octets().to_vec()),
            })
            .collect();
        transaction.add_elements(&table, PORTS, &ports);
        transaction.add_elements(&table, NODES, &nodes);
        transaction
    }

    fn table(&self) -> Table {
        Table {
            family: Family::Ipv4,
            name: self.name.table(),
            comment: format!("swarm development network {}, {}", self.name, self.subnet),
            sets: vec![
                Set { name: PORTS, key: &[Field::Protocol, Field::Port], value: SetValue::None },
                Set { name: NODES, key: &[Field::Index], value: SetValue::Fields(&[Field::Ipv4]) },
            ],
            chains: vec![self.raw_prerouting(), self.nat_output(), self.nat_postrouting()],
        }
    }

    /// The bridge accepts loopback addresses for the answers to this machine; the nodes must not use that.
    fn raw_prerouting(&self) -> Chain {
        let bridge = self.name.bridge();
        let guard = rule(format!("iifname {bridge} ip daddr 127.0.0.0/8 drop"))
            .iif(Compare::Equal, &bridge)
            .loopback_destination()
            .verdict(Verdict::Drop);
        Chain::base("raw_prerouting", "filter", HookPoint::Prerouting, -300, vec![guard])
    }

    fn nat_output(&self) -> Chain {
        let mut rules = Vec::new();
        if let Some(count) = u32::try_from(self.nodes.len()).ok().filter(|&count| count > 0) {
            for address in [Ipv4Addr::LOCALHOST, self.host] {
                let text = format!(
                    "ip daddr {address} meta l4proto . th dport @{PORTS} dnat to numgen random mod {count} map @{NODES}"
                );
                rules.push(
                    rule(text)
                        .destination(A)
                        .equal(A, &address.octets())
                        .protocol_and_port()
                        .lookup(PORTS, A, Lookup::Member)
                        .push(Expression::Spread(Spread::Random(count), A))
                        .lookup(NODES, A, Lookup::Value(A))
                        .dnat_address(),
                );
            }
        }
        Chain::base("nat_output", "nat", HookPoint::Output, -100, rules)
    }

    fn nat_postrouting(&self) -> Chain {
        let bridge = self.name.bridge();
        let subnet = self.subnet;
        let mask = subnet.netmask().octets().to_vec();
        let rules = vec![
            rule(format!("oifname {bridge} ip saddr 127.0.0.0/8 snat to {}", self.host))
                .oif(Compare::Equal, &bridge)
                .loopback_source()
                .snat(self.host),
            // Other development networks of this machine see the nodes' own addresses.
            rule(format!("ip saddr {subnet} oifgroup != {BRIDGE_GROUP} masquerade"))
                .source(A)
                .push(Expression::And(A, mask))
                .equal(A, &subnet.network().octets())
                .oif_group(Compare::Different, BRIDGE_GROUP)
                .push(Expression::Masquerade),
        ];
        Chain::base("nat_postrouting", "nat", HookPoint::Postrouting, 100, rules)
    }
}
