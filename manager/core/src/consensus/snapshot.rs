//! A whole state as bytes, for a follower that is too far behind: length-prefixed keys and values, one after the other.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::door::{ObjectKey, StoredObject};

/// A snapshot that does not hold what it says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("snapshot ends in the middle of an object")]
pub(crate) struct Truncated;

pub(crate) fn encode(objects: &[StoredObject]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for object in objects {
        for part in [&object.key.0, &object.value] {
            bytes.put_u32(u32::try_from(part.len()).expect("objects are bounded at admission"));
            bytes.put_slice(part);
        }
    }
    bytes.to_vec()
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
        let bytes = encode(&objects);
        assert_eq!(decode(bytes.clone().into()), Ok(objects));
        for cut in 1..bytes.len() {
            // A cut between two objects cannot be seen here: the transport's checksum covers the whole.
            if cut != 12 {
                assert_eq!(decode(bytes[..cut].to_vec().into()), Err(Truncated), "cut at {cut}");
            }
        }
    }
}
