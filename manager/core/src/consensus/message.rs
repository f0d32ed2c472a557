//! Raft messages from the wire: checked before raft-rs may see them.

use bytes::Bytes;
use prost011::Message as _;
use raft::eraftpb::{EntryType, Message, MessageType};

use super::snapshot::{self, Truncated};
use crate::door::StoredObject;

/// A state that came with a message.
#[derive(Debug)]
pub(super) struct Received {
    pub index: u64,
    pub objects: Vec<StoredObject>,
}

/// Why a peer's message was dropped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("raft message cannot be decoded")]
    Decode(#[source] prost011::DecodeError),
    #[error("raft message has the unknown type {0}")]
    UnknownType(i32),
    #[error("raft message of type {0:?} must not come from a peer")]
    Local(MessageType),
    #[error("raft message asks for a read without its context")]
    NoContext,
    #[error("raft message holds an entry of the unknown type {0}")]
    UnknownEntry(i32),
    #[error("raft message has a damaged snapshot")]
    Snapshot(#[source] Truncated),
    #[error("raft message has a snapshot without its state, or a state without its snapshot")]
    NoState,
    #[error("raft message from {from} to {to} is not for this member")]
    Misrouted { from: u64, to: u64 },
    #[error("raft refused the message")]
    Refused(#[source] raft::Error),
}

/// Takes the state out of a snapshot, or from `state` if it came beside the message.
pub(super) fn decode(
    bytes: &[u8],
    state: Bytes,
    own_id: u64,
) -> Result<(Message, Option<Received>), MessageError> {
    let mut message = Message::decode(bytes).map_err(MessageError::Decode)?;
    let kind = MessageType::from_i32(message.msg_type).ok_or(MessageError::UnknownType(message.msg_type))?;
    // Proposals are not forwarded between members: the API forwards whole requests.
    if raft::raw_node::is_local_msg(kind) || kind == MessageType::MsgPropose {
        return Err(MessageError::Local(kind));
    }
    if kind == MessageType::MsgReadIndex && message.entries.len() != 1 {
        return Err(MessageError::NoContext);
    }
    if let Some(entry) = message.entries.iter().find(|entry| EntryType::from_i32(entry.entry_type).is_none())
    {
        return Err(MessageError::UnknownEntry(entry.entry_type));
    }
    let is_snapshot = kind == MessageType::MsgSnapshot;
    let received = match &mut message.snapshot {
        Some(found) if is_snapshot => {
            let inside = Bytes::from(std::mem::take(&mut found.data));
            let state = if state.is_empty() { inside } else { state };
            let objects = snapshot::decode(state).map_err(MessageError::Snapshot)?;
            let index = found.metadata.as_ref().map_or(0, |metadata| metadata.index);
            Some(Received { index, objects }).filter(|received| !received.objects.is_empty())
        }
        Some(_) | None => None,
    };
    if is_snapshot != received.is_some() {
        return Err(MessageError::NoState);
    }
    if message.to != own_id || message.from == own_id || message.from == 0 {
        return Err(MessageError::Misrouted { from: message.from, to: message.to });
    }
    Ok((message, received))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_raft_would_panic_on_is_refused() {
        let good =
            Message { msg_type: MessageType::MsgHeartbeat as i32, from: 2, to: 1, ..Message::default() };
        let check = |change: &dyn Fn(&mut Message), expect: &str| {
            let mut message = good.clone();
            change(&mut message);
            let refused = decode(&message.encode_to_vec(), Bytes::new(), 1).unwrap_err().to_string();
            assert!(refused.contains(expect), "{refused}");
        };
        assert!(decode(&good.encode_to_vec(), Bytes::new(), 1).is_ok());
        check(&|m| m.msg_type = 99, "unknown type 99");
        check(&|m| m.msg_type = MessageType::MsgHup as i32, "must not come");
        check(&|m| m.msg_type = MessageType::MsgPropose as i32, "must not come");
        check(&|m| m.msg_type = MessageType::MsgReadIndex as i32, "without its context");
        check(
            &|m| m.entries = vec![raft::eraftpb::Entry { entry_type: 7, ..Default::default() }],
            "unknown type 7",
        );
        let damaged = raft::eraftpb::Snapshot { data: vec![0, 0, 0, 9, 1], ..Default::default() };
        let snapshot = |m: &mut Message, snapshot| {
            m.msg_type = MessageType::MsgSnapshot as i32;
            m.snapshot = Some(snapshot);
        };
        check(&|m| snapshot(m, damaged.clone()), "damaged snapshot");
        check(&|m| snapshot(m, raft::eraftpb::Snapshot::default()), "without its state");
        check(&|m| m.to = 3, "not for this member");
        assert!(decode(b"\xff\xff\xff", Bytes::new(), 1).is_err());
    }
}
