//! Removing a development network, also one that a killed process has left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{DevName, namespace, port_group};
use crate::DevError;
use crate::netlink::{Batch, NetlinkError, Socket, Subsystem, link};
use crate::nft::{Family, Transaction};

/// Removes everything of that name; that there is nothing is no error.
pub fn clean(name: &DevName) -> Result<(), DevError> {
    for (_, namespace, _) in namespace::list(&name.netns_prefix())? {
        namespace::remove(&namespace)?;
    }
    remove_links_and_rules(name).map_err(|source| DevError::Netlink { name: name.to_string(), source })
}

fn remove_links_and_rules(name: &DevName) -> Result<(), NetlinkError> {
    let mut route = Socket::open(Subsystem::Route)?;
    if let Some(bridge) = link::find(&mut route, &name.bridge())? {
        let mut batch = Batch::new();
        link::delete_group(&mut batch, port_group(bridge.index));
        link::delete(&mut batch, bridge.index);
        route.execute(batch)?;
    }
    let mut netfilter = Socket::open(Subsystem::Netfilter)?;
    let mut transaction = Transaction::new();
    transaction.remove_table(Family::Ipv4, &name.table());
    transaction.commit(&mut netfilter)
}

/// Processes inside the named namespaces: node and process id. Those that end meanwhile may be missing or listed.
pub fn processes(name: &DevName) -> Result<Vec<(u16, i32)>, DevError> {
    let failed = |source| DevError::Processes { source };
    let mut nodes = BTreeMap::new();
    for (node, _, path) in namespace::list(&name.netns_prefix())? {
        if let Ok(metadata) = fs::metadata(path) {
            nodes.insert((metadata.dev(), metadata.ino()), node);
        }
    }
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(metadata) = fs::metadata(entry.path().join("ns/net")) else { continue };
        found.extend(nodes.get(&(metadata.dev(), metadata.ino())).map(|&node| (node, pid)));
    }
    found.sort_unstable();
    Ok(found)
}
