//! Waiting until a container listens where its service is published, so that nobody is sent to a closed port.
//!
//! Only for a while: a container that never listens counts as running all the same. What a container can do is to be late.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use swarm_model::{PortSpec, Protocol};

/// Containers that need longer to listen are counted as running before they do.
const LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Of a socket table: some thousand sockets. A container that has more is not starting any more.
const MAX_TABLE_BYTES: u64 = 1 << 20;
/// `TCP_LISTEN` in the kernel's tables.
const LISTEN: &str = "0A";

/// Returns once every published TCP port has a listener in the network namespace of process `pid`, or after a while.
pub(crate) async fn listening(pid: i32, ports: &[PortSpec]) {
    let tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let wanted: BTreeSet<u16> = tcp.map(|port| port.target).collect();
    let look = async {
        let mut pause = FIRST_PAUSE;
        while !wanted.is_subset(&listeners(pid)) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    // Late is not wrong: see above.
    let _ = tokio::time::timeout(LIMIT, look).await;
}

/// Ports that are listened on. A process that is gone has none.
fn listeners(pid: i32) -> BTreeSet<u16> {
    let tables = ["tcp", "tcp6"].map(|table| {
        let mut text = String::new();
        let file = File::open(format!("/proc/{pid}/net/{table}"));
        // A table that was cut in the middle of a character does not exist: it is all ASCII.
        let read = file.and_then(|file| file.take(MAX_TABLE_BYTES).read_to_string(&mut text));
        read.map(|_| text).unwrap_or_default()
    });
    tables.iter().flat_map(|table| table.lines()).filter_map(listener).collect()
}

/// `  0: 00000000:1F90 00000000:0000 0A …`: number, own address and port, the other side's, state.
fn listener(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let (own, state) = (words.next()?, words.nth(1)?);
    let port = own.rsplit_once(':').filter(|_| state == LISTEN)?.1;
    u16::from_str_radix(port, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid";
        let four = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
        let six = "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0";
        let connected = "   2: 0100007F:1F91 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0";
        assert_eq!([header, four, six, connected].map(listener), [None, Some(8080), Some(80), None]);
    }

    #[tokio::test]
    async fn a_port_is_waited_for_until_it_is_listened_on() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().port();
        let pid = i32::try_from(std::process::id()).unwrap();
        let port =
            PortSpec { protocol: Protocol::Tcp, mode: swarm_model::PortMode::Host, target, published: None };
        assert!(listeners(pid).contains(&target));
        listening(pid, std::slice::from_ref(&port)).await;
        drop(listener);
        assert!(!listeners(pid).contains(&target));
    }
}
