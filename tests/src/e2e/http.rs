//! HTTP requests from a chosen place: the machine beyond the bridge, or inside a node's namespace.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use super::Cluster;

const TIMEOUT: Duration = Duration::from_secs(3);

/// One request on a connection of its own; the answer's body.
pub fn try_get(address: SocketAddrV4) -> Result<String, String> {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address.into(), TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().map_err(|error| format!("{address}: {error}"))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.trim().to_owned()),
        _ => Err(format!("{address}: {answer:?}")),
    }
}

/// As [`try_get`], as soon as it works.
pub fn get(address: SocketAddrV4) -> String {
    super::eventually(&format!("{address} answers"), || try_get(address))
}

/// As [`try_get`], from inside a node.
pub fn get_from(cluster: &Cluster, number: u16, address: SocketAddrV4) -> Result<String, String> {
    cluster.network().within(number, || try_get(address)).expect("the node's namespace")
}
