//! The rules of a node: fixed for a configuration, whatever tasks and ports there are.
//!
//! What changes (backends, nodes, targets) is in sets and maps, so that a change costs microseconds and a packet costs the
//! same with one port or ten thousand. A published port leads to the chain for its number of backends, which picks one
//! of the port's slots at random. Transactions are not atomic for a packet that does two lookups, so a pick that hits a
//! slot that has just gone falls back to slot 0, and a packet that finds none at all is dropped, never let through
//! without its address translated.

use std::net::Ipv4Addr;

use crate::address_plan::{AddressPlan, MARK_FLAG, MARK_MASK};
use crate::nft::expression::{Base, Compare, Conntrack, Lookup, Meta, Refusal, Spread};
use crate::nft::phrase::{A, B, C, STATE_ESTABLISHED, STATE_NEW, STATE_RELATED, TCP, rule};
use crate::nft::table::HookPoint;
use crate::nft::{Chain, Expression, Family, Field, Set, SetValue, Table, Verdict};

/// Name of the tunnel device.
pub const TUNNEL: &str = "sw-mesh";
/// Device group of the host ends of all tasks' veth pairs.
pub const TASK_GROUP: u32 = 77;
/// Device group of the host ends of pairs that no task has yet.
pub const READY_GROUP: u32 = 79;
/// Name of both tables.
pub const TABLE: &str = "swarm";

/// Mark to hardware address of the node that it stands for.
pub const PEER_MAC: &str = "peer_mac";
/// Hardware address of a node's tunnel to its mark.
pub const PEER_MARK: &str = "peer_mark";
/// Hardware address of a node's tunnel to its conntrack zone.
pub const PEER_ZONE: &str = "peer_zone";
/// Data addresses of all nodes.
pub const NODES: &str = "nodes";
/// Published port to the chain for its number of backends.
pub const PUBLISHED: &str = "published";
/// Published port and slot to backend.
pub const BACKENDS: &str = "backends";
/// Published ports without backends.
pub const UNSERVED: &str = "unserved";
/// What other nodes may reach of this node's tasks.
pub const TARGETS: &str = "targets";
/// Ports of this node alone to a task's port.
pub const HOST_PORTS: &str = "host_ports";

/// What the rules depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    pub plan: AddressPlan,
    pub index: u16,
    pub vni: u32,
    pub vxlan_port: u16,
}

impl Parameters {
    /// Identifies the configuration: elements of a table with another one are worthless.
    pub fn comment(&self) -> String {
        let Self { plan, index, vni, vxlan_port } = self;
        format!("swarm node {index} of {}, VNI {vni}, port {vxlan_port}", plan.pool())
    }
}

/// The table that sends packets back to the node through which their connection came in.
pub fn netdev_table(parameters: &Parameters) -> Table {
    let rules = [
        rule(format!("meta mark & {MARK_FLAG:#x} == 0 accept"))
            .meta(Meta::Mark, A)
            .and(A, MARK_FLAG)
            .zero(A)
            .verdict(Verdict::Accept),
        rule(format!("ether daddr set meta mark & {MARK_MASK:#x} map @{PEER_MAC}"))
            .meta(Meta::Mark, A)
            .and(A, MARK_MASK)
            .lookup(PEER_MAC, A, Lookup::Value(A))
            .push(Expression::SetPayload { base: Base::Link, offset: 0, length: 6, from: A }),
        // The outer packet would inherit the mark and be routed into the tunnel again.
        rule("meta mark set 0")
            .push(Expression::Immediate(A, 0u32.to_ne_bytes().to_vec()))
            .push(Expression::SetMeta(Meta::Mark, A)),
    ];
    let to_peer = Chain::base("to_peer", "filter", HookPoint::Egress(TUNNEL.to_owned()), 0, rules);
    Table {
        family: Family::Netdev,
        name: TABLE.to_owned(),
        comment: parameters.comment(),
        sets: vec![Set { name: PEER_MAC, key: &[Field::Mark], value: SetValue::Fields(&[Field::Ether]) }],
        chains: vec![to_peer],
    }
}

/// The table for everything else.
pub fn ip_table(parameters: &Parameters) -> Table {
    Table {
        family: Family::Ipv4,
        name: TABLE.to_owned(),
        comment: parameters.comment(),
        sets: ip_sets(),
        chains: vec![
            raw_prerouting(parameters.vxlan_port),
            mangle_prerouting(),
            nat_prerouting(parameters.vxlan_port),
            nat_output(),
            input(),
            forward(parameters.vxlan_port),
            nat_postrouting(parameters.plan.tunnel_address(parameters.index)),
        ],
    }
}

fn ip_sets() -> Vec<Set> {
    use Field::{Ether, Index, Ipv4, Mark, Port, Protocol, Zone};
    let set = |name, key, value| Set { name, key, value };
    vec![
        set(PEER_MARK, &[Ether], SetValue::Fields(&[Mark])),
        set(PEER_ZONE, &[Ether], SetValue::Fields(&[Zone])),
        set(NODES, &[Ipv4], SetValue::None),
        set(PUBLISHED, &[Protocol, Port], SetValue::Verdict),
        set(BACKENDS, &[Protocol, Port, Index], SetValue::Fields(&[Ipv4, Port])),
        set(UNSERVED, &[Protocol, Port], SetValue::None),
        set(TARGETS, &[Ipv4, Protocol, Port], SetValue::None),
        set(HOST_PORTS, &[Protocol, Port], SetValue::Fields(&[Ipv4, Port])),
    ]
}

fn raw_prerouting(vxlan_port: u16) -> Chain {
    let rules = vec![
        // Task devices accept packets for loopback addresses as answers to the node's own connections; nobody else
        // may reach the node's loopback services that way.
        rule(format!("iifgroup {TASK_GROUP} ip daddr 127.0.0.0/8 drop"))
            .iif_group(Compare::Equal, TASK_GROUP)
            .loopback_destination()
            .verdict(Verdict::Drop),
        rule(format!("iifname {TUNNEL} ip daddr 127.0.0.0/8 drop"))
            .iif(Compare::Equal, TUNNEL)
            .loopback_destination()
            .verdict(Verdict::Drop),
        // Only nodes may speak on the tunnel.
        rule(format!("udp dport {vxlan_port} fib daddr type local ip saddr != @{NODES} drop"))
            .udp_to(vxlan_port)
            .local_destination()
            .source(A)
            .lookup(NODES, A, Lookup::NoMember)
            .verdict(Verdict::Drop),
        // One client port that comes through two nodes to one task is one tuple here: zones keep the two apart.
        rule(format!("iifname {TUNNEL} ct original zone set ether saddr map @{PEER_ZONE}"))
            .iif(Compare::Equal, TUNNEL)
            .ether_source(A)
            .lookup(PEER_ZONE, A, Lookup::Value(A))
            .push(Expression::SetConntrack { key: Conntrack::Zone, direction: Some(0), from: A }),
    ];
    Chain::base("raw_prerouting", "filter", HookPoint::Prerouting, -300, rules)
}

fn mangle_prerouting() -> Chain {
    let rules = vec![
        // Remember through which node a connection came …
        rule(format!("iifname {TUNNEL} ct state new ct mark set ether saddr map @{PEER_MARK}"))
            .iif(Compare::Equal, TUNNEL)
            .state(STATE_NEW)
            .ether_source(A)
            .lookup(PEER_MARK, A, Lookup::Value(A))
            .push(Expression::SetConntrack { key: Conntrack::Mark, direction: None, from: A }),
        // … and send the answers back through it.
        rule(format!(
            "iifgroup {TASK_GROUP} ct direction reply ct mark & {MARK_FLAG:#x} != 0 meta mark set ct mark"
        ))
        .iif_group(Compare::Equal, TASK_GROUP)
        .reply()
        .conntrack(Conntrack::Mark, A)
        .and(A, MARK_FLAG)
        .nonzero(A)
        .conntrack(Conntrack::Mark, A)
        .push(Expression::SetMeta(Meta::Mark, A)),
    ];
    Chain::base("mangle_prerouting", "filter", HookPoint::Prerouting, -150, rules)
}

fn nat_prerouting(vxlan_port: u16) -> Chain {
    let rules = vec![
        // Publishing the tunnel's own port must not cut the node off.
        rule(format!("udp dport {vxlan_port} accept")).udp_to(vxlan_port).verdict(Verdict::Accept),
        rule(format!(
            "iifname != {TUNNEL} fib daddr type local dnat to meta l4proto . th dport map @{HOST_PORTS}"
        ))
        .iif(Compare::Different, TUNNEL)
        .local_destination()
        .protocol_and_port()
        .lookup(HOST_PORTS, A, Lookup::Value(A))
        .dnat_endpoint(),
        rule(format!("iifname != {TUNNEL} fib daddr type local meta l4proto . th dport vmap @{PUBLISHED}"))
            .iif(Compare::Different, TUNNEL)
            .local_destination()
            .protocol_and_port()
            .lookup(PUBLISHED, A, Lookup::Verdict),
    ];
    Chain::base("nat_prerouting", "nat", HookPoint::Prerouting, -100, rules)
}

fn nat_output() -> Chain {
    let rules = vec![
        rule(format!("fib daddr type local dnat to meta l4proto . th dport map @{HOST_PORTS}"))
            .local_destination()
            .protocol_and_port()
            .lookup(HOST_PORTS, A, Lookup::Value(A))
            .dnat_endpoint(),
        rule(format!("fib daddr type local meta l4proto . th dport vmap @{PUBLISHED}"))
            .local_destination()
            .protocol_and_port()
            .lookup(PUBLISHED, A, Lookup::Verdict),
    ];
    Chain::base("nat_output", "nat", HookPoint::Output, -100, rules)
}

fn input() -> Chain {
    let rules = vec![
        // `new`: the port may also be the local end of a connection that the node itself opened.
        rule(format!(
            "ct state new meta l4proto tcp meta l4proto . th dport @{UNSERVED} reject with tcp reset"
        ))
        .state(STATE_NEW)
        .protocol(TCP)
        .protocol_and_port()
        .lookup(UNSERVED, A, Lookup::Member)
        .push(Expression::Reject(Refusal::TcpReset)),
        rule(format!("ct state new meta l4proto . th dport @{UNSERVED} reject"))
            .state(STATE_NEW)
            .protocol_and_port()
            .lookup(UNSERVED, A, Lookup::Member)
            .push(Expression::Reject(Refusal::PortUnreachable)),
    ];
    Chain::base("input", "filter", HookPoint::Input, 0, rules)
}

fn forward(vxlan_port: u16) -> Chain {
    let rules = vec![
        // A task's packets leave with the node's address, which the other nodes trust on the tunnel port.
        rule(format!("iifgroup {TASK_GROUP} udp dport {vxlan_port} ip daddr @{NODES} drop"))
            .iif_group(Compare::Equal, TASK_GROUP)
            .udp_to(vxlan_port)
            .destination(A)
            .lookup(NODES, A, Lookup::Member)
            .verdict(Verdict::Drop),
        rule(format!("oifname {TUNNEL} tcp flags syn tcp option maxseg size set rt mtu"))
            .oif(Compare::Equal, TUNNEL)
            .protocol(TCP)
            .push(Expression::Payload { base: Base::Transport, offset: 13, length: 1, to: A })
            .push(Expression::And(A, vec![TCP_FLAG_SYN]))
            .different(A, &[0])
            .push(Expression::RouteMaxSegment(A))
            .push(Expression::ToNetworkOrder(A))
            .push(Expression::SetMaxSegment(A)),
        rule("ct state established,related accept")
            .state(STATE_ESTABLISHED | STATE_RELATED)
            .verdict(Verdict::Accept),
        rule(format!(
            "iifname {TUNNEL} oifgroup {TASK_GROUP} ip daddr . meta l4proto . th dport @{TARGETS} accept"
        ))
        .iif(Compare::Equal, TUNNEL)
        .oif_group(Compare::Equal, TASK_GROUP)
        .destination(A)
        .meta(Meta::L4Proto, B)
        .destination_port(C)
        .lookup(TARGETS, A, Lookup::Member)
        .verdict(Verdict::Accept),
        rule(format!("iifname {TUNNEL} drop")).iif(Compare::Equal, TUNNEL).verdict(Verdict::Drop),
        rule(format!("oifname {TUNNEL} ct status dnat accept"))
            .oif(Compare::Equal, TUNNEL)
            .translated()
            .verdict(Verdict::Accept),
        rule(format!("oifname {TUNNEL} drop")).oif(Compare::Equal, TUNNEL).verdict(Verdict::Drop),
        rule(format!("oifgroup {TASK_GROUP} ct status dnat accept"))
            .oif_group(Compare::Equal, TASK_GROUP)
            .translated()
            .verdict(Verdict::Accept),
        rule(format!("oifgroup {TASK_GROUP} drop"))
            .oif_group(Compare::Equal, TASK_GROUP)
            .verdict(Verdict::Drop),
    ];
    Chain::base("forward", "filter", HookPoint::Forward, 0, rules)
}

fn nat_postrouting(tunnel: Ipv4Addr) -> Chain {
    let rules = vec![
        // The node's own connections have no client to show, and its address would be a martian on that very node.
        rule(format!("oifname {TUNNEL} ip saddr @{NODES} snat to {tunnel}"))
            .oif(Compare::Equal, TUNNEL)
            .source(A)
            .lookup(NODES, A, Lookup::Member)
            .snat(tunnel),
        rule(format!("oifname {TUNNEL} ip saddr 127.0.0.0/8 snat to {tunnel}"))
            .oif(Compare::Equal, TUNNEL)
            .loopback_source()
            .snat(tunnel),
        rule(format!("oifgroup {TASK_GROUP} ip saddr 127.0.0.0/8 snat to {tunnel}"))
            .oif_group(Compare::Equal, TASK_GROUP)
            .loopback_source()
            .snat(tunnel),
        // A task that reaches itself or a neighbour through a published port: the answer has to come by here.
        rule(format!("iifgroup {TASK_GROUP} oifgroup {TASK_GROUP} ct status dnat snat to {tunnel}"))
            .iif_group(Compare::Equal, TASK_GROUP)
            .oif_group(Compare::Equal, TASK_GROUP)
            .translated()
            .snat(tunnel),
        rule(format!("iifgroup {TASK_GROUP} oifname {TUNNEL} ct status dnat snat to {tunnel}"))
            .iif_group(Compare::Equal, TASK_GROUP)
            .oif(Compare::Equal, TUNNEL)
            .translated()
            .snat(tunnel),
        rule(format!("iifgroup {TASK_GROUP} oifgroup != {TASK_GROUP} oifname != {TUNNEL} masquerade"))
            .iif_group(Compare::Equal, TASK_GROUP)
            .oif_group(Compare::Different, TASK_GROUP)
            .oif(Compare::Different, TUNNEL)
            .push(Expression::Masquerade),
    ];
    Chain::base("nat_postrouting", "nat", HookPoint::Postrouting, 100, rules)
}

/// Name of the chain that picks one of `count` slots.
pub fn pick_chain_name(count: usize) -> String {
    format!("pick_{count}")
}

/// The chain that picks one of `count` slots of the packet's port; shared by all ports with that many backends.
pub fn pick_chain(count: usize) -> Chain {
    let modulus = u32::try_from(count).expect("a port has fewer than 2^32 backends");
    let pick = |spread, text: String| {
        rule(text)
            .protocol_and_port()
            .push(Expression::Spread(spread, C))
            .lookup(BACKENDS, A, Lookup::Value(A))
            .dnat_endpoint()
            .finish()
    };
    let text = |numgen| format!("dnat to meta l4proto . th dport . numgen {numgen} map @{BACKENDS}");
    Chain {
        name: pick_chain_name(count),
        hook: None,
        rules: vec![
            pick(Spread::Random(modulus), text(format!("random mod {count}"))),
            pick(Spread::Zero, text("inc mod 1".to_owned())),
            rule("drop").verdict(Verdict::Drop).finish(),
        ],
    }
}

const TCP_FLAG_SYN: u8 = 0x02;
