//! What the kernel's tables hold now.

use super::expression::{DATA_VALUE, DATA_VERDICT, VERDICT_CHAIN};
use super::table::{Element, ElementValue, Family};
use super::transaction::{Message, header};
use crate::netlink::{Attribute, NetlinkError, Socket};

/// Comment of a table, empty if it has none; `None` if there is no such table.
pub fn table_comment(
    socket: &mut Socket,
    family: Family,
    name: &str,
) -> Result<Option<String>, NetlinkError> {
    let mut comment = None;
    let action = format!("read table {} {name}", family.word());
    let message = Message::GetTable.number();
    socket.dump(
        &action,
        message,
        &header(family as u8),
        |_| {},
        |body| {
            let attributes = body.get(4..).unwrap_or_default();
            if Attribute::find(attributes, 1).and_then(Attribute::text) == Some(name) {
                // Type and length of the comment come before its text.
                let text = Attribute::find(attributes, 6).and_then(|a| {
                    let text = std::str::from_utf8(a.value.get(2..)?).ok()?;
                    Some(text.trim_end_matches('\0').to_owned())
                });
                comment = Some(text.unwrap_or_default());
            }
        },
    )?;
    Ok(comment)
}

/// All elements of a set; none if there is no such set.
pub fn elements(
    socket: &mut Socket,
    family: Family,
    table: &str,
    set: &str,
) -> Result<Vec<Element>, NetlinkError> {
    let mut elements = Vec::new();
    let action = format!("read set {} {table} {set}", family.word());
    let outcome = socket.dump(
        &action,
        Message::GetElement.number(),
        &header(family as u8),
        |a| {
            a.text(1, table);
            a.text(2, set);
        },
        |body| {
            let list = Attribute::find(body.get(4..).unwrap_or_default(), 3);
            elements.extend(Attribute::all(list.map_or(&[][..], |a| a.value)).filter_map(parse_element));
        },
    );
    match outcome {
        Err(error) if error.refusal() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(()) => Ok(elements),
    }
}

fn parse_element(element: Attribute<'_>) -> Option<Element> {
    let key = Attribute::find_path(element.value, &[1, DATA_VALUE])?.to_vec();
    let value = match Attribute::find(element.value, 2) {
        None => ElementValue::None,
        Some(data) => match Attribute::find_path(data.value, &[DATA_VERDICT, VERDICT_CHAIN]) {
            Some(chain) => ElementValue::Goto(Attribute { kind: 0, value: chain }.text()?.to_owned()),
            None => ElementValue::Bytes(Attribute::find(data.value, DATA_VALUE)?.value.to_vec()),
        },
    };
    Some(Element { key, value })
}

/// A chain of any table that packets enter from a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedChain {
    pub family: u8,
    pub table: String,
    pub name: String,
    pub hook: u32,
    /// What happens to packets that no rule decided on.
    pub drops: bool,
}

/// Every base chain of the namespace, of all families.
pub fn base_chains(socket: &mut Socket) -> Result<Vec<ListedChain>, NetlinkError> {
    let mut chains = Vec::new();
    let message = Message::GetChain.number();
    socket.dump("list chains", message, &header(0), |_| {}, |body| chains.extend(parse_chain(body)))?;
    Ok(chains)
}

fn parse_chain(body: &[u8]) -> Option<ListedChain> {
    let attributes = body.get(4..)?;
    let find = |kind| Attribute::find(attributes, kind);
    let hook = Attribute::find(find(4)?.value, 1)?.be32()?;
    Some(ListedChain {
        family: *body.first()?,
        table: find(1)?.text()?.to_owned(),
        name: find(3)?.text()?.to_owned(),
        hook,
        drops: find(5).and_then(Attribute::be32) == Some(0),
    })
}
