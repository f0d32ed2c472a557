//! What the machine itself brings: kernel features, forwarding, and firewalls that are not ours.

use std::net::Ipv4Addr;
use std::{fs, io};

use ipnet::Ipv4Net;

use super::ruleset::{TABLE, TASK_GROUP, TUNNEL};
use crate::address_plan::AddressPlan;
use crate::error::OpenError;
use crate::netlink::route::{self, ORIGIN};
use crate::netlink::{NetlinkError, Socket, link};
use crate::nft::read;

/// The first kernel with nf_tables on the way out of a device, which brings answers back to the right node.
const OLDEST_KERNEL: (u32, u32) = (5, 16);
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Refuses kernels that are too old.
pub fn check_kernel() -> Result<(), OpenError> {
    let system = nix::sys::utsname::uname().map_err(|errno| OpenError::Kernel(errno.into()))?;
    let release = system.release().to_string_lossy();
    match parse_release(&release) {
        Some(version) if version < OLDEST_KERNEL => {
            Err(OpenError::OldKernel { release: release.into_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Lets the machine forward packets. It stays so afterwards: others may have come to rely on it.
pub fn enable_forwarding() -> Result<(), OpenError> {
    let failed = |source| OpenError::Forwarding { path: FORWARDING, source };
    if fs::read_to_string(FORWARDING).map_err(failed)?.trim() == "1" {
        return Ok(());
    }
    fs::write(FORWARDING, "1").map_err(failed)
}

/// Which kernel option a refusal of this error number points at, if the action needs one.
pub fn missing_feature(error: &NetlinkError) -> Option<&'static str> {
    let NetlinkError::Refused { action, source, .. } = error else { return None };
    let unsupported = [libc::EOPNOTSUPP, libc::ENOENT, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];
    if !source.raw_os_error().is_some_and(|errno| unsupported.contains(&errno)) {
        return None;
    }
    /// Words of an action, in order of precedence, and the option behind it.
    const FEATURES: [(&str, &str); 12] = [
        ("add VXLAN device", "CONFIG_VXLAN (module vxlan)"),
        ("add veth pair", "CONFIG_VETH (module veth)"),
        ("chain netdev", "CONFIG_NETFILTER_EGRESS and CONFIG_NF_TABLES_NETDEV"),
        ("table netdev", "CONFIG_NF_TABLES_NETDEV"),
        ("ct original zone", "CONFIG_NF_CONNTRACK_ZONES"),
        ("numgen", "CONFIG_NFT_NUMGEN (module nft_numgen)"),
        ("fib daddr", "CONFIG_NFT_FIB_IPV4 (module nft_fib_ipv4)"),
        ("reject", "CONFIG_NFT_REJECT (module nft_reject_ipv4)"),
        ("masquerade", "CONFIG_NFT_MASQ (module nft_masq)"),
        ("nat_", "CONFIG_NFT_NAT (module nft_chain_nat)"),
        ("ct ", "CONFIG_NFT_CT (module nft_ct)"),
        ("table ip", "CONFIG_NF_TABLES and CONFIG_NF_TABLES_IPV4"),
    ];
    FEATURES.iter().find(|(words, _)| action.contains(words)).map(|&(_, feature)| feature)
}

/// The data address has to be on a device, whose MTU bounds that of the tunnel.
pub fn underlay_mtu(socket: &mut Socket, data_address: Ipv4Addr) -> Result<Option<u16>, NetlinkError> {
    let device = route::addresses(socket)?.into_iter().find(|(_, net)| net.addr() == data_address);
    let Some((device, _)) = device else { return Ok(None) };
    let link = link::list(socket)?.into_iter().find(|link| link.index == device);
    Ok(link.map(|link| u16::try_from(link.mtu).unwrap_or(u16::MAX)))
}

/// What of the machine's own configuration will keep packets from flowing, with what to do about it.
pub fn obstacles(
    route: &mut Socket,
    netfilter: &mut Socket,
    plan: AddressPlan,
) -> Result<Vec<String>, NetlinkError> {
    let mut found = overlapping_routes(route, plan.pool())?;
    found.extend(firewalls(netfilter)?);
    Ok(found)
}

/// Firewalls of other software that drop the cluster's packets.
pub fn firewalls(netfilter: &mut Socket) -> Result<Vec<String>, NetlinkError> {
    let matches = [
        format!("iifname {TUNNEL}"),
        format!("oifname {TUNNEL}"),
        format!("iifgroup {TASK_GROUP}"),
        format!("oifgroup {TASK_GROUP}"),
    ];
    dropping_chains(netfilter, &matches)
}

fn overlapping_routes(socket: &mut Socket, pool: Ipv4Net) -> Result<Vec<String>, NetlinkError> {
    let overlaps = |net: Ipv4Net| net.prefix_len() > 0 && (net.contains(&pool) || pool.contains(&net));
    let foreign = route::routes(socket)?.into_iter().filter(|route| {
        // The kernel's own routes in the local table repeat the addresses of devices.
        route.origin != ORIGIN && route.table != LOCAL_TABLE && overlaps(route.destination)
    });
    Ok(foreign
        .map(|route| {
            format!(
                "the route to {} overlaps the cluster's gateway pool {pool}: hosts there may be unreachable; \
                 initialize the cluster with another pool",
                route.destination
            )
        })
        .collect())
}

const LOCAL_TABLE: u32 = 255;

/// Chains of other software that drop forwarded packets by default, each with the commands that let those through that
/// match one of `matches` (in the language of `nft`).
pub fn dropping_chains(socket: &mut Socket, matches: &[String]) -> Result<Vec<String>, NetlinkError> {
    const FORWARD: u32 = 2;
    let families = [(1, "inet"), (2, "ip")];
    let dropping = read::base_chains(socket)?.into_iter().filter_map(|chain| {
        let (_, family) = families.into_iter().find(|&(number, _)| number == chain.family)?;
        (chain.hook == FORWARD && chain.drops && chain.table != TABLE).then(|| {
            let (table, name) = (chain.table, chain.name);
            let commands: Vec<String> = matches
                .iter()
                .map(|text| format!("nft insert rule {family} {table} {name} {text} accept"))
                .collect();
            format!(
                "chain {name} of table {family} {table} drops forwarded packets, so published ports and tasks' \
                 connections will not work; let them pass with: {}",
                commands.join("; ")
            )
        })
    });
    Ok(dropping.collect())
}

/// Whether the error means that the caller may not do this at all.
pub fn is_permission(error: &NetlinkError) -> bool {
    let kind = match error {
        NetlinkError::Open { source, .. }
        | NetlinkError::Talk { source, .. }
        | NetlinkError::Refused { source, .. } => source.kind(),
        NetlinkError::Unsettled { .. } => return false,
    };
    kind == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert_eq!(parse_release("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(parse_release("5.9-rc1"), Some((5, 9)));
        assert!(parse_release("5.9.0").unwrap() < OLDEST_KERNEL);
        assert!(parse_release("10.0").unwrap() > OLDEST_KERNEL);
    }

    #[test]
    fn a_refusal_names_the_kernel_option() {
        let refused = |action: &str, errno| NetlinkError::Refused {
            action: action.to_owned(),
            detail: None,
            source: io::Error::from_raw_os_error(errno),
        };
        let egress = refused("add chain netdev swarm to_peer", libc::EOPNOTSUPP);
        assert!(missing_feature(&egress).unwrap().contains("CONFIG_NETFILTER_EGRESS"));
        let tunnel = refused("add VXLAN device sw-mesh (VNI 4096, port 4789)", libc::EOPNOTSUPP);
        assert!(missing_feature(&tunnel).unwrap().contains("CONFIG_VXLAN"));
        assert_eq!(missing_feature(&refused("add route 10.0.0.0/8", libc::EINVAL)), None);
    }
}
