//! Connections that the kernel tracks: finding and forgetting them.
//!
//! A UDP sender that keeps its port keeps its tracked connection, and with it the translation to a backend that may be
//! long gone. TCP needs nothing of the kind: a stopped task's connections end by themselves.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::netlink::{Attribute, Batch, NetlinkError, Socket};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const HEADER: [u8; 4] = [2, 0, 0, 0]; // AF_INET
const UDP: u8 = 17;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const TUPLE_ZONE: u16 = 3;
const IP_SOURCE: u16 = 1;
const IP_DESTINATION: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;
const FILTER_ORIGINAL_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
/// The kernel compares these parts of a tuple when it filters a dump (`enum ctnetlink_filter…`).
const FLAG_IP_SOURCE: u32 = 1 << 0;
const FLAG_PROTO_NUMBER: u32 = 1 << 3;
const FLAG_PROTO_SOURCE_PORT: u32 = 1 << 4;
const FLAG_PROTO_DESTINATION_PORT: u32 = 1 << 5;

/// Forgets the UDP connections that are translated to a backend. Gives their number.
pub fn forget_udp_backend(socket: &mut Socket, backend: SocketAddrV4) -> Result<usize, NetlinkError> {
    let mut found = Vec::new();
    socket.dump(
        "list connections of a backend",
        GET,
        &HEADER,
        |a| {
            a.nest(TUPLE_REPLY, |a| {
                a.nest(TUPLE_IP, |a| a.address(IP_SOURCE, *backend.ip()));
                a.nest(TUPLE_PROTO, |a| {
                    a.u8(PROTO_NUMBER, UDP);
                    a.be16(PROTO_SOURCE_PORT, backend.port());
                });
            });
            a.nest(FILTER, |a| {
                a.u32(FILTER_ORIGINAL_FLAGS, 0);
                a.u32(FILTER_REPLY_FLAGS, FLAG_IP_SOURCE | FLAG_PROTO_NUMBER | FLAG_PROTO_SOURCE_PORT);
            });
        },
        |body| {
            let connection = Connection::parse(body);
            found.extend(connection.filter(|c| c.reply_source == Some(*backend.ip()) && c.is_translated()));
        },
    )?;
    forget(socket, &found)
}

/// Forgets the UDP connections to a port of this node that are not translated: they began before the port was published.
pub fn forget_untranslated_udp(socket: &mut Socket, port: u16) -> Result<usize, NetlinkError> {
    let mut found = Vec::new();
    socket.dump(
        "list connections to a port",
        GET,
        &HEADER,
        |a| {
            a.nest(TUPLE_ORIGINAL, |a| {
                a.nest(TUPLE_PROTO, |a| {
                    a.u8(PROTO_NUMBER, UDP);
                    a.be16(PROTO_DESTINATION_PORT, port);
                });
            });
            a.nest(FILTER, |a| {
                a.u32(FILTER_ORIGINAL_FLAGS, FLAG_PROTO_NUMBER | FLAG_PROTO_DESTINATION_PORT);
                a.u32(FILTER_REPLY_FLAGS, 0);
            });
        },
        |body| found.extend(Connection::parse(body).filter(|connection| !connection.is_translated())),
    )?;
    forget(socket, &found)
}

fn forget(socket: &mut Socket, connections: &[Connection]) -> Result<usize, NetlinkError> {
    let mut batch = Batch::new();
    for connection in connections {
        let flags = 0;
        batch.push_tolerating("forget a connection", &[libc::ENOENT], DELETE, flags, &HEADER, |a| {
            a.bytes(TUPLE_ORIGINAL, &connection.original);
            if let Some(id) = &connection.id {
                a.bytes(ID, id);
            }
            if let Some(zone) = connection.zone {
                a.be16(ZONE, zone);
            }
        });
    }
    socket.execute(batch)?;
    Ok(connections.len())
}

/// What identifies a tracked connection, as the kernel gave it.
struct Connection {
    original: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<u16>,
    original_destination: Option<Ipv4Addr>,
    reply_source: Option<Ipv4Addr>,
}

impl Connection {
    fn parse(body: &[u8]) -> Option<Self> {
        let attributes = body.get(4..)?;
        let find = |kind| Attribute::find(attributes, kind);
        let address = |path: &[u16]| {
            Attribute::find_path(attributes, path).and_then(|value| Attribute { kind: 0, value }.address())
        };
        let original = find(TUPLE_ORIGINAL)?.value;
        let zone = find(ZONE).or_else(|| Attribute::find(original, TUPLE_ZONE));
        Some(Self {
            original: original.to_vec(),
            id: find(ID).map(|id| id.value.to_vec()),
            zone: zone.and_then(Attribute::be16),
            original_destination: address(&[TUPLE_ORIGINAL, TUPLE_IP, IP_DESTINATION]),
            reply_source: address(&[TUPLE_REPLY, TUPLE_IP, IP_SOURCE]),
        })
    }

    fn is_translated(&self) -> bool {
        self.original_destination != self.reply_source
    }
}
