//! A subnet that collides with nothing on this machine.

use ipnet::Ipv4Net;

use crate::netlink::{Socket, route};
use crate::{DevError, NodeNetworkConfig};

/// Where development networks are looked for: outside the default gateway pool and what other software takes first.
const CANDIDATES: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 88, 0, 0), 14);
const PREFIX: u8 = 24;

/// The first candidate that overlaps no route but the default route.
pub fn free(socket: &mut Socket) -> Result<Ipv4Net, DevError> {
    let routes = route::routes(socket).map_err(DevError::Open)?;
    let taken: Vec<Ipv4Net> = routes.into_iter().map(|route| route.destination).collect();
    choose(&taken).ok_or(DevError::NoSubnet { candidates: CANDIDATES })
}

fn choose(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let overlaps = |net: &Ipv4Net| {
        taken.iter().any(|other| other.prefix_len() > 0 && (other.contains(net) || net.contains(other)))
    };
    debug_assert!(!NodeNetworkConfig::DEFAULT_POOL.contains(&CANDIDATES));
    CANDIDATES.subnets(PREFIX).ok()?.find(|net| !overlaps(net))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(taken: &[&str], expected: &str) {
        let taken: Vec<Ipv4Net> = taken.iter().map(|net| net.parse().unwrap()).collect();
        assert_eq!(choose(&taken), Some(expected.parse().unwrap()));
    }

    #[test]
    fn the_first_subnet_without_a_route_is_chosen() {
        check(&["0.0.0.0/0", "192.168.0.0/16"], "10.88.0.0/24");
        check(&["10.88.0.254/32", "10.88.1.0/25"], "10.88.2.0/24");
        check(&["10.88.0.0/16"], "10.89.0.0/24");
    }

    #[test]
    fn there_may_be_none() {
        assert_eq!(choose(&["10.0.0.0/8".parse().unwrap()]), None);
    }
}
