//! A whole state as bytes, for a follower that is too far behind: length-prefixed keys and values, one after the other.
//! Raft's own message says only at which index that is; the shell makes the bytes while it sends them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost011::Message as _;
use raft::eraftpb::Message;

use crate::door::{ObjectKey, StoredObject};
use crate::store::Capture;

/// Of a piece, at least, but for the last one. It ends with an object.
const PIECE_BYTES: usize = 512 << 10;

/// A snapshot that does not hold what it says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("snapshot ends in the middle of an object")]
pub(crate) struct Truncated;

impl Capture {
    /// Every object, for a follower: some hundred KiB at a time, to be put one behind the other.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> {
        pieces(self.objects())
    }

    /// `message`, of [`crate::door::Effect::SendSnapshot`], with the state in it: for a transport that knows no streams.
    pub fn within(&self, message: &Bytes) -> Bytes {
        let mut message = Message::decode(&**message).expect("it was encoded by the core");
        message.snapshot.get_or_insert_default().data = self.pieces().collect::<Vec<_>>().concat();
        Bytes::from(message.encode_to_vec())
    }
}

fn pieces(mut objects: impl Iterator<Item = StoredObject>) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let mut bytes = BytesMut::new();
        while bytes.len() < PIECE_BYTES
            && let Some(object) = objects.next()
        {
            for part in [&object.key.0, &object.value] {
                bytes.put_u32(u32::try_from(part.len()).expect("objects are bounded at admission"));
                bytes.put_slice(part);
            }
        }
        (!bytes.is_empty()).then(|| bytes.freeze())
    })
}

pub(crate) fn decode(mut bytes: Bytes) -> Result<Vec<StoredObject>, Truncated> {
    let mut objects = Vec::new();
    while bytes.has_remaining() {
        let key = ObjectKey(part(&mut bytes)?);
        objects.push(StoredObject { key, value: part(&mut bytes)? });
    }
    Ok(objects)
}

fn part(bytes: &mut Bytes) -> Result<Bytes, Truncated> {
    let length = bytes.try_get_u32().map_err(|_| Truncated)? as usize;
    if length > bytes.remaining() {
        return Err(Truncated);
    }
    Ok(bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_round_trip_and_a_cut_is_noticed() {
        let object = |key: &'static [u8], value: &'static [u8]| StoredObject {
            key: ObjectKey(Bytes::from_static(key)),
            value: Bytes::from_static(value),
        };
        let objects = vec![object(b"a", b"one"), object(b"bb", b"")];
        let bytes = pieces(objects.clone().into_iter()).next().unwrap();
        assert_eq!(decode(bytes.clone()), Ok(objects));
        for cut in 1..bytes.len() {
            // A cut between two objects cannot be seen here: the transport's checksum covers the whole.
            if cut != 12 {
                assert_eq!(decode(bytes.slice(..cut)), Err(Truncated), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_large_state_leaves_in_pieces_of_whole_objects() {
        let object = |number: u8| StoredObject {
            key: ObjectKey(Bytes::from(vec![number])),
            value: Bytes::from(vec![number; PIECE_BYTES / 3]),
        };
        let objects: Vec<_> = (0..10).map(object).collect();
        let pieces: Vec<_> = pieces(objects.clone().into_iter()).collect();
        assert_eq!(pieces.len(), 4);
        let each = pieces.into_iter().flat_map(|piece| decode(piece).unwrap());
        assert_eq!(each.collect::<Vec<_>>(), objects);
    }
}
