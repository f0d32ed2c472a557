//! What is programmed, and the sockets to change it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::ruleset::{self, READY_GROUP, TABLE, TASK_GROUP};
use super::tables::{Changes, Tables, family_of};
use super::tasks::Task;
use super::tunnel::{Tunnel, Wanted};
use crate::OpenError;
use crate::netlink::{Batch, NetlinkError, Socket, link};
use crate::nft::{Family, Table, Transaction, read};

#[derive(Debug)]
pub struct State {
    pub(super) route: Socket,
    pub(super) netfilter: Socket,
    pub(super) tunnel: Tunnel,
    pub(super) data_address: Ipv4Addr,
    /// What the kernel's tables hold, unless `stale`.
    pub(super) tables: Tables,
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) ip: Table,
    pub(super) netdev: Table,
    /// Numbers of backends for which there is a chain.
    chains: BTreeSet<usize>,
    /// The last change failed: the kernel's tables are not known to equal ours.
    stale: bool,
}

impl State {
    /// Reads what an earlier process programmed and loads the rules of this one around it.
    pub fn load(
        mut route: Socket,
        mut netfilter: Socket,
        tunnel: Tunnel,
        data_address: Ipv4Addr,
    ) -> Result<Self, OpenError> {
        let parameters = tunnel.parameters;
        let comment = read::table_comment(&mut netfilter, Family::Ipv4, TABLE)?;
        let mut tables = Tables::default();
        if comment == Some(parameters.comment()) {
            tables = Tables::read(&mut netfilter)?;
            tables.peers = tunnel.peers(&mut route)?.into_iter().collect();
        }
        tables.nodes = tables.node_addresses(data_address);
        let mut state = Self {
            route,
            netfilter,
            tunnel,
            data_address,
            tables,
            tasks: BTreeMap::new(),
            ip: ruleset::ip_table(&parameters),
            netdev: ruleset::netdev_table(&parameters),
            chains: BTreeSet::new(),
            stale: true,
        };
        state.reload()?;
        Ok(state)
    }

    /// Makes the kernel follow a change that `self.tables` has gone through.
    pub(super) fn commit(&mut self, changes: &Changes) -> Result<(), NetlinkError> {
        if self.stale {
            return self.reload();
        }
        if changes.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::new();
        for &count in changes.counts.difference(&self.chains) {
            transaction.add_chain(&self.ip, &ruleset::pick_chain(count));
        }
        for (&set, elements) in &changes.delete {
            transaction.delete_elements(self.table_of(set), set, elements);
        }
        self.add_all(&mut transaction, changes);
        if let Err(error) = transaction.commit(&mut self.netfilter) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the kernel's tables are not as they were left; loading them anew"
            );
            return self.reload();
        }
        self.chains.extend(&changes.counts);
        Ok(())
    }

    /// Replaces the kernel's tables by ours, in one step.
    fn reload(&mut self) -> Result<(), NetlinkError> {
        self.stale = true;
        let changes = Changes::load(&self.tables);
        let mut transaction = Transaction::new();
        transaction.replace_table(&self.netdev);
        transaction.replace_table(&self.ip);
        for &count in &changes.counts {
            transaction.add_chain(&self.ip, &ruleset::pick_chain(count));
        }
        self.add_all(&mut transaction, &changes);
        transaction.commit(&mut self.netfilter)?;
        self.chains = changes.counts;
        self.stale = false;
        Ok(())
    }

    fn add_all(&self, transaction: &mut Transaction, changes: &Changes) {
        for (&set, elements) in &changes.add {
            transaction.add_elements(self.table_of(set), set, elements);
        }
    }

    fn table_of(&self, set: &str) -> &Table {
        match family_of(set) {
            Family::Ipv4 => &self.ip,
            Family::Netdev => &self.netdev,
        }
    }

    pub fn repair(&mut self) -> Result<bool, OpenError> {
        let comment = Some(self.tunnel.parameters.comment());
        let mut repaired = false;
        if link::by_index(&mut self.route, self.tunnel.device)?.is_none() {
            self.reopen_tunnel()?;
            repaired = true;
        }
        for family in [Family::Ipv4, Family::Netdev] {
            if self.stale || read::table_comment(&mut self.netfilter, family, TABLE)? != comment || repaired {
                self.reload()?;
                repaired = true;
            }
        }
        Ok(repaired)
    }

    fn reopen_tunnel(&mut self) -> Result<(), NetlinkError> {
        let wanted = Wanted {
            parameters: self.tunnel.parameters,
            data_address: self.data_address,
            mtu: self.tunnel.mtu,
        };
        self.tunnel = Tunnel::open(&mut self.route, &wanted)?;
        let mut batch = Batch::new();
        for (&index, &address) in &self.tables.peers {
            self.tunnel.add_peer(&mut batch, index, address);
        }
        for task in self.tasks.values() {
            task.connect(&mut batch, &self.tunnel);
        }
        self.route.execute(batch)
    }

    pub fn teardown(mut self) -> Result<(), OpenError> {
        let mut transaction = Transaction::new();
        transaction.remove_table(Family::Ipv4, TABLE);
        transaction.remove_table(Family::Netdev, TABLE);
        transaction.commit(&mut self.netfilter)?;
        self.tunnel.remove(&mut self.route)?;
        let mut batch = Batch::new();
        for group in [TASK_GROUP, READY_GROUP] {
            link::delete_group(&mut batch, group);
        }
        self.route.execute(batch)?;
        Ok(())
    }
}
