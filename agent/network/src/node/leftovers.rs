//! Finding what a node has left in the kernel.

use super::ruleset::{TABLE, TASK_GROUP, TUNNEL};
use crate::OpenError;
use crate::netlink::route::{self, ORIGIN};
use crate::netlink::{Socket, Subsystem, link};
use crate::nft::{Family, read};

pub fn list() -> Result<Vec<String>, OpenError> {
    let mut route = Socket::open(Subsystem::Route)?;
    let mut netfilter = Socket::open(Subsystem::Netfilter)?;
    let mut found = Vec::new();
    for link in link::list(&mut route)? {
        if link.group == TASK_GROUP || link.name == TUNNEL {
            found.push(format!("device {}", link.name));
        }
    }
    for route in route::routes(&mut route)? {
        if route.origin == ORIGIN {
            found.push(format!("route {} in table {}", route.destination, route.table));
        }
    }
    let rules = route::count_own_rules(&mut route)?;
    found.extend((0..rules).map(|_| "routing rule".to_owned()));
    for family in [Family::Ipv4, Family::Netdev] {
        if read::table_comment(&mut netfilter, family, TABLE)?.is_some() {
            found.push(format!("table {} {TABLE}", family.word()));
        }
    }
    Ok(found)
}
