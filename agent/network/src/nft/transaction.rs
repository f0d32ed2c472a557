//! Changes that the kernel takes whole or not at all.

use super::expression::{DATA_VALUE, DATA_VERDICT, VERDICT_CHAIN, VERDICT_CODE};
use super::table::{Chain, Element, ElementValue, Family, Field, HookPoint, Rule, Set, SetValue, Table};
use crate::netlink::{Attributes, Batch, NetlinkError, Socket};

/// Elements per message: an element is below 100 bytes and a list has to stay below 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;

#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub(super) enum Message {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    NewSet = 9,
    NewElement = 12,
    GetElement = 13,
    DeleteElement = 14,
}

impl Message {
    pub(super) const fn number(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

pub(super) fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// A list of changes. Nothing happens before [`Transaction::commit`].
#[derive(Debug)]
pub struct Transaction {
    batch: Batch,
    sets: u32,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    pub fn new() -> Self {
        let mut batch = Batch::new();
        batch.push("begin a transaction", BATCH_BEGIN, 0, &batch_header(), |_| {});
        Self { batch, sets: 0 }
    }

    /// Makes all changes, or none.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        if self.batch.len() == 1 {
            return Ok(());
        }
        self.batch.push("end the transaction", BATCH_END, 0, &batch_header(), |_| {});
        socket.transact(self.batch)
    }

    /// Replaces a table by one without elements, whether there is one of its name or not.
    pub fn replace_table(&mut self, table: &Table) {
        // A table has to be there to be deleted; adding one that is there changes nothing.
        self.add_empty_table(table.family, &table.name, None);
        self.delete_table(table.family, &table.name);
        self.add_empty_table(table.family, &table.name, Some(&table.comment));
        for set in &table.sets {
            self.add_set(table, set);
        }
        for chain in &table.chains {
            self.add_chain(table, chain);
        }
    }

    /// Removes a table, whether there is one of its name or not.
    pub fn remove_table(&mut self, family: Family, name: &str) {
        self.add_empty_table(family, name, None);
        self.delete_table(family, name);
    }

    fn add_empty_table(&mut self, family: Family, name: &str, comment: Option<&str>) {
        let action = format!("add table {} {name}", family.word());
        self.push(action, Message::NewTable, libc::NLM_F_CREATE, family, |a| {
            a.text(1, name);
            a.be32(2, 0);
            if let Some(comment) = comment {
                a.bytes(6, &comment_data(comment));
            }
        });
    }

    fn delete_table(&mut self, family: Family, name: &str) {
        let action = format!("delete table {} {name}", family.word());
        self.push(action, Message::DeleteTable, 0, family, |a| a.text(1, name));
    }

    fn add_set(&mut self, table: &Table, set: &Set) {
        const FLAG_MAP: u32 = 0x8;
        const DATA_IS_VERDICT: u32 = 0xffff_ff00;
        self.sets += 1;
        let id = self.sets;
        let action = format!("add set {} {} {}", table.family.word(), table.name, set.name);
        self.push(action, Message::NewSet, libc::NLM_F_CREATE, table.family, |a| {
            a.text(1, &table.name);
            a.text(2, set.name);
            a.be32(3, if set.value == SetValue::None { 0 } else { FLAG_MAP });
            a.be32(4, Field::total_datatype(set.key));
            a.be32(5, length_of(set.key));
            match set.value {
                SetValue::None => {}
                SetValue::Fields(fields) => {
                    a.be32(6, Field::total_datatype(fields));
                    a.be32(7, length_of(fields));
                }
                SetValue::Verdict => {
                    a.be32(6, DATA_IS_VERDICT);
                    a.be32(7, 0);
                }
            }
            a.be32(10, id);
            a.bytes(13, &byte_orders(set));
        });
    }

    /// Adds a chain with its rules.
    pub fn add_chain(&mut self, table: &Table, chain: &Chain) {
        let action = format!("add chain {} {} {}", table.family.word(), table.name, chain.name);
        self.push(action, Message::NewChain, libc::NLM_F_CREATE, table.family, |a| {
            a.text(1, &table.name);
            a.text(3, &chain.name);
            if let Some(hook) = &chain.hook {
                a.nest(4, |a| {
                    a.be32(1, hook.point.number());
                    a.be32(2, hook.priority.cast_unsigned());
                    if let HookPoint::Egress(device) = &hook.point {
                        a.text(3, device);
                    }
                });
                a.text(7, hook.kind);
            }
        });
        for rule in &chain.rules {
            self.add_rule(table, &chain.name, rule);
        }
    }

    fn add_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        let (family, name) = (table.family.word(), &table.name);
        let action = format!("add rule `{}` to chain {family} {name} {chain}", rule.text);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        self.push(action, Message::NewRule, flags, table.family, |a| {
            a.text(1, name);
            a.text(2, chain);
            a.nest(4, |a| rule.expressions.iter().for_each(|expression| expression.encode(a)));
        });
    }

    /// Adds elements; those that are there already with the same value are left alone.
    pub fn add_elements(&mut self, table: &Table, set: &str, elements: &[Element]) {
        self.change_elements("add", Message::NewElement, libc::NLM_F_CREATE, table, set, elements);
    }

    /// Deletes elements, all of which have to be there.
    pub fn delete_elements(&mut self, table: &Table, set: &str, elements: &[Element]) {
        self.change_elements("delete", Message::DeleteElement, 0, table, set, elements);
    }

    fn change_elements(
        &mut self,
        verb: &str,
        message: Message,
        flags: i32,
        table: &Table,
        set: &str,
        elements: &[Element],
    ) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let (family, name, count) = (table.family.word(), &table.name, part.len());
            let action = format!("{verb} {count} elements of set {family} {name} {set}");
            self.push(action, message, flags, table.family, |a| {
                a.text(1, name);
                a.text(2, set);
                a.nest(3, |a| part.iter().for_each(|element| encode_element(a, element)));
            });
        }
    }

    fn push(
        &mut self,
        action: String,
        message: Message,
        flags: i32,
        family: Family,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.batch.push(action, message.number(), flags, &header(family as u8), body);
    }
}

fn batch_header() -> [u8; 4] {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    [0, 0, high, low]
}

fn length_of(fields: &[Field]) -> u32 {
    u32::try_from(Field::total_length(fields)).expect("keys have a few bytes")
}

/// What the `nft` tool wants to know to list a set's numbers the right way round: the byte orders of key (type 0) and
/// value (type 1), where 1 is the host's and 2 the network's. The kernel only keeps it.
fn byte_orders(set: &Set) -> Vec<u8> {
    let order = |fields: &[Field]| if fields.iter().all(|field| field.is_host_order()) { 1u32 } else { 2 };
    let value = match set.value {
        SetValue::Fields(fields) => order(fields),
        SetValue::None | SetValue::Verdict => 1,
    };
    let mut data = Vec::new();
    for (kind, order) in [(0, order(set.key)), (1, value)] {
        data.extend_from_slice(&[kind, 4]);
        data.extend_from_slice(&order.to_ne_bytes());
    }
    data
}

/// A comment as the `nft` tool stores it: type 0, length, text with a terminating zero.
fn comment_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).expect("our comments are short");
    let mut data = vec![0, length];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}

fn encode_element(list: &mut Attributes<'_>, element: &Element) {
    const GOTO: i32 = -4;
    list.nest(1, |a| {
        a.nest(1, |a| a.bytes(DATA_VALUE, &element.key));
        match &element.value {
            ElementValue::None => {}
            ElementValue::Bytes(value) => a.nest(2, |a| a.bytes(DATA_VALUE, value)),
            ElementValue::Goto(chain) => a.nest(2, |a| {
                a.nest(DATA_VERDICT, |a| {
                    a.be32(VERDICT_CODE, GOTO.cast_unsigned());
                    a.text(VERDICT_CHAIN, chain);
                });
            }),
        }
    });
}
