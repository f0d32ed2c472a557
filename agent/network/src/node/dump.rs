//! What is programmed, as text for people.

use std::fmt::Write;

use super::ruleset::{self, TABLE, TASK_GROUP, TUNNEL};
use super::state::State;
use super::tables::{Tables, family_of};
use crate::OpenError;
use crate::address_plan::{mark, tunnel_mac};
use crate::netlink::link;
use crate::nft::{Chain, Table, read};

impl State {
    pub fn dump(&mut self) -> Result<String, OpenError> {
        let held = Tables::read(&mut self.netfilter)?;
        let mut text = format!("{}\n", self.tunnel.parameters.comment());
        self.write_nodes(&mut text)?;
        self.write_tasks(&mut text)?;
        write_ports(&mut text, &held);
        for table in [&self.netdev, &self.ip] {
            write_rules(&mut text, table);
        }
        for count in held.ports.values().map(Vec::len).collect::<std::collections::BTreeSet<_>>() {
            if count > 0 {
                write_chain(&mut text, &ruleset::pick_chain(count));
            }
        }
        Ok(text)
    }

    fn write_nodes(&mut self, text: &mut String) -> Result<(), OpenError> {
        let plan = self.tunnel.parameters.plan;
        let own = self.tunnel.parameters.index;
        let device = self.tunnel.device;
        line(text, format_args!("\nnodes (tunnel device {TUNNEL}, number {device})"));
        line(
            text,
            format_args!("  {own:>4}  {:<15}  block {}  this node", self.data_address, plan.block(own)),
        );
        for (index, address) in self.tunnel.peers(&mut self.route)? {
            let (block, mark, mac) = (plan.block(index), mark(index), tunnel_mac(index));
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            line(text, format_args!("  {index:>4}  {address:<15}  block {block}  mark {mark:#x}  mac {mac}"));
        }
        let set = ruleset::PEER_MARK;
        let marked = read::elements(&mut self.netfilter, family_of(set), TABLE, set)?.len();
        line(text, format_args!("  nodes that answers can go back through: {marked}"));
        Ok(())
    }

    fn write_tasks(&mut self, text: &mut String) -> Result<(), OpenError> {
        line(text, format_args!("\ntasks"));
        for link in link::list(&mut self.route)?.iter().filter(|link| link.group == TASK_GROUP) {
            let name = link.alias.as_deref().unwrap_or("(no name)");
            let task = self.tasks.values().find(|task| task.device == link.index);
            match task {
                Some(task) => line(text, format_args!("  {:<15}  {}  {name}", task.address, link.name)),
                None => line(text, format_args!("  {:<15}  {}  {name}", "not adopted", link.name)),
            }
        }
        Ok(())
    }
}

fn write_ports(text: &mut String, tables: &Tables) {
    line(text, format_args!("\npublished ports (mesh)"));
    for ((protocol, port), backends) in &tables.ports {
        let backends: Vec<String> = backends.iter().map(ToString::to_string).collect();
        let backends = if backends.is_empty() { "refused".to_owned() } else { backends.join(" ") };
        line(text, format_args!("  {protocol}/{port} -> {backends}"));
    }
    line(text, format_args!("\nhost ports"));
    for ((protocol, port), target) in &tables.host_ports {
        line(text, format_args!("  {protocol}/{port} -> {target}"));
    }
    line(text, format_args!("\nreachable from other nodes"));
    for (address, protocol, port) in &tables.targets {
        line(text, format_args!("  {address}:{port}/{protocol}"));
    }
}

fn write_rules(text: &mut String, table: &Table) {
    line(text, format_args!("\ntable {} {}", table.family.word(), table.name));
    for chain in &table.chains {
        write_chain(text, chain);
    }
}

fn write_chain(text: &mut String, chain: &Chain) {
    let hook = chain.hook.as_ref().map_or_else(String::new, |hook| {
        format!(" (type {} hook {} priority {})", hook.kind, hook.point.word(), hook.priority)
    });
    line(text, format_args!("  chain {}{hook}", chain.name));
    for rule in &chain.rules {
        line(text, format_args!("    {}", rule.text));
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a string does not fail");
}
