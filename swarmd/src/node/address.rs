//! Addresses of this node, as the operator gave them or as the machine has them.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::{Context, bail};

use crate::config::DEFAULT_PORT;

/// `HOST[:PORT]` of an address that other nodes reach; empty: that of the default route.
///
/// # Errors
/// Not an IPv4 address, one that no other node could reach, or no default route.
pub fn advertised(text: &str, port: u16) -> anyhow::Result<SocketAddrV4> {
    if text.is_empty() {
        return Ok(SocketAddrV4::new(of_default_route()?, port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => {
            (host, port.parse().with_context(|| format!("{text:?}: {port:?} is not a port"))?)
        }
        None => (text, port),
    };
    let address: Ipv4Addr =
        host.parse().with_context(|| format!("{text:?} is not an IPv4 address with an optional port"))?;
    if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        bail!("{address} cannot be told to other nodes; name an address of this machine");
    }
    Ok(SocketAddrV4::new(address, port))
}

/// `HOST[:PORT]` of a manager, with the default port filled in.
///
/// # Errors
/// Not of that form.
pub fn manager(text: &str) -> anyhow::Result<String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if host.is_empty() || host.len() > 253 || host.chars().any(char::is_whitespace) {
        bail!("{text:?} is not of the form HOST[:PORT]");
    }
    let port = if port.is_empty() {
        DEFAULT_PORT
    } else {
        port.parse().with_context(|| format!("{text:?}: {port:?} is not a port"))?
    };
    Ok(format!("{host}:{port}"))
}

/// The address that this machine would use towards other networks. No packet is sent.
fn of_default_route() -> anyhow::Result<Ipv4Addr> {
    // Documentation addresses (RFC 5737): routed by the default route on any machine.
    let find = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        socket.local_addr()
    };
    match find() {
        Ok(std::net::SocketAddr::V4(address)) => Ok(*address.ip()),
        Ok(_) | Err(_) => bail!(
            "this machine has no default route to take its address from; name one with --advertise-addr"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_an_optional_port_and_refuse_what_nobody_reaches() {
        assert_eq!(advertised("10.0.0.1", 2377).ok(), Some("10.0.0.1:2377".parse().expect("an address")));
        assert_eq!(advertised("10.0.0.1:99", 2377).ok(), Some("10.0.0.1:99".parse().expect("an address")));
        assert!(
            advertised("0.0.0.0", 2377).is_err()
                && advertised("x", 1).is_err()
                && advertised("1.2.3.4:x", 1).is_err()
        );
        assert_eq!(manager("m1").ok().as_deref(), Some("m1:2377"));
        assert_eq!(manager("10.0.0.1:99").ok().as_deref(), Some("10.0.0.1:99"));
        assert!(manager("").is_err() && manager("a b").is_err());
    }
}
