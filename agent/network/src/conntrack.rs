//! Connections that the kernel tracks: finding and forgetting them.
//!
//! A UDP sender that keeps its port keeps its tracked connection, and with it the translation to a backend that may be
//! long gone. TCP needs nothing of the kind: a stopped task's connections end by themselves.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use crate::netlink::{Attribute, Attributes, Batch, NetlinkError, Socket};

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

/// Whose tracked UDP connections are out of date.
#[derive(Debug, Default)]
pub struct Senders {
    /// Those that are translated to one of these backends.
    pub translated_to: BTreeSet<SocketAddrV4>,
    /// Those that are not translated and go to one of these ports: they began before the port led anywhere.
    pub untranslated: BTreeSet<u16>,
}

impl Senders {
    fn include(&self, connection: &Connection) -> bool {
        if connection.is_translated() {
            self.translated_to.contains(&connection.reply_source)
        } else {
            self.untranslated.contains(&connection.original_destination.port())
        }
    }

    /// The only backend, if that is all there is to look for.
    fn single_backend(&self) -> Option<SocketAddrV4> {
        let mut backends = self.translated_to.iter();
        backends.next().copied().filter(|_| backends.next().is_none() && self.untranslated.is_empty())
    }
}

/// Forgets connections, so that the next datagram of each sender is balanced anew. Gives their number. The kernel walks its
/// whole table once, whatever is looked for; it copies only the candidates.
pub fn forget_udp(socket: &mut Socket, senders: &Senders) -> Result<usize, NetlinkError> {
    if senders.translated_to.is_empty() && senders.untranslated.is_empty() {
        return Ok(0);
    }
    let backend = senders.single_backend();
    let filter = |a: &mut Attributes<'_>| {
        a.nest(TUPLE_REPLY, |a| {
            if let Some(backend) = backend {
                a.nest(TUPLE_IP, |a| a.address(IP_SOURCE, *backend.ip()));
            }
            a.nest(TUPLE_PROTO, |a| {
                a.u8(PROTO_NUMBER, UDP);
                if let Some(backend) = backend {
                    a.be16(PROTO_SOURCE_PORT, backend.port());
                }
            });
        });
        a.nest(FILTER, |a| {
            let narrow = backend.map_or(0, |_| FLAG_IP_SOURCE | FLAG_PROTO_SOURCE_PORT);
            a.u32(FILTER_ORIGINAL_FLAGS, 0);
            a.u32(FILTER_REPLY_FLAGS, FLAG_PROTO_NUMBER | narrow);
        });
    };
    let mut found = Vec::new();
    socket.dump("list UDP connections", GET, &HEADER, filter, |body| {
        found.extend(Connection::parse(body).filter(|connection| senders.include(connection)));
    })?;
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
    original_destination: SocketAddrV4,
    reply_source: SocketAddrV4,
}

impl Connection {
    fn parse(body: &[u8]) -> Option<Self> {
        let attributes = body.get(4..)?;
        let find = |kind| Attribute::find(attributes, kind);
        let original = find(TUPLE_ORIGINAL)?.value;
        let zone = find(ZONE).or_else(|| Attribute::find(original, TUPLE_ZONE));
        Some(Self {
            original: original.to_vec(),
            id: find(ID).map(|id| id.value.to_vec()),
            zone: zone.and_then(Attribute::be16),
            original_destination: endpoint(original, IP_DESTINATION, PROTO_DESTINATION_PORT)?,
            reply_source: endpoint(find(TUPLE_REPLY)?.value, IP_SOURCE, PROTO_SOURCE_PORT)?,
        })
    }

    fn is_translated(&self) -> bool {
        self.original_destination != self.reply_source
    }
}

fn endpoint(tuple: &[u8], address: u16, port: u16) -> Option<SocketAddrV4> {
    let address = Attribute::find(Attribute::find(tuple, TUPLE_IP)?.value, address)?.address()?;
    let port = Attribute::find(Attribute::find(tuple, TUPLE_PROTO)?.value, port)?.be16()?;
    Some(SocketAddrV4::new(address, port))
}
