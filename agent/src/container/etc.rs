//! The files of /etc that depend on the node and its network.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// Where systemd-resolved keeps the servers that its own loopback resolver asks.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// Used where the node knows no server that a container could reach, as Docker does.
const PUBLIC: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

/// /etc/hosts: loopback, the container's own name, and what the spec adds.
pub(super) fn hosts(hostname: &str, address: Ipv4Addr, extra: &[(String, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    let _ = writeln!(text, "{address}\t{hostname}");
    text
}

/// /etc/resolv.conf of this node, made fit for containers. A resolver on the node's loopback cannot be reached from
/// a container's network: then the servers behind it are taken, or public ones.
pub(crate) fn resolver_configuration() -> String {
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    match reachable(&own) {
        Some(text) => text,
        None => fs::read_to_string(UPSTREAM)
            .ok()
            .and_then(|text| reachable(&text))
            .unwrap_or_else(|| public(&own)),
    }
}

/// The text without loopback servers; `None` if no server is left.
fn reachable(text: &str) -> Option<String> {
    let server = |line: &str| line.trim().strip_prefix("nameserver").map(str::trim).map(str::to_owned);
    let is_loopback = |server: &str| {
        let address = server.split('%').next().unwrap_or(server);
        address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let kept = text.lines().filter(|line| !server(line).is_some_and(|server| is_loopback(&server)));
    let mut has_server = false;
    let mut filtered = String::new();
    for line in kept {
        has_server |= server(line).is_some();
        filtered.push_str(line);
        filtered.push('\n');
    }
    has_server.then_some(filtered)
}

/// The node's search domains and options with public servers.
fn public(text: &str) -> String {
    let mut made: String = PUBLIC.iter().map(|server| format!("nameserver {server}\n")).collect();
    for line in text.lines().filter(|line| line.starts_with("search") || line.starts_with("options")) {
        made.push_str(line);
        made.push('\n');
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_resolvers_are_left_out() {
        let text = "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch example.org\n";
        assert_eq!(reachable(text).unwrap(), "# by hand\nnameserver 10.0.0.2\nsearch example.org\n");
        assert_eq!(reachable("nameserver 127.0.0.53\nnameserver ::1\n"), None);
        let expect = "nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch example.org\n";
        assert_eq!(public("nameserver 127.0.0.53\nsearch example.org\n"), expect);
    }

    #[test]
    fn hosts_names_the_container_and_what_was_added() {
        let text = hosts("web", Ipv4Addr::new(10, 192, 4, 11), &[("db".to_owned(), "10.0.0.9".to_owned())]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.ends_with("10.0.0.9\tdb\n10.192.4.11\tweb\n"), "{text}");
    }
}
