//! The bytes of the log: frames of records behind a segment header.
//!
//! A frame is what one append wrote, and is valid as a whole or not at all. Its header says where it stands and up to
//! where the segment was durable when it was written. That tells a torn tail from damage: what a later frame calls
//! durable was once whole, so if it is not any more, the disk lost it.
//!
//! ```text
//! segment: magic 8 | segment number 8 | end of the segment before it 8 | crc32 4 | zero 4 | frames …
//! frame:   magic 4 | payload length 4 | segment number 8 | own offset 8 | durable offset 8 | crc32 4 | zero 4 | payload
//! payload: records of: kind 1 | length 4 | index 8 | term 8 | data
//! ```
//! All numbers are little-endian. A checksum covers everything before it and, in a frame, the payload.

use bytes::Bytes;
use swarm_manager_core::door::LogEntry;

pub const SEGMENT_HEADER: u64 = 32;
pub const FRAME_HEADER: u64 = 40;
const RECORD_HEADER: usize = 21;
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"swarmlg1");
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"swfr");

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Entry(LogEntry),
    HardState(Bytes),
    /// All entries before are void; the index is that of the snapshot which replaced them.
    Reset(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub number: u64,
    pub previous_end: u64,
}

/// A frame found whole.
#[derive(Debug)]
pub struct Frame {
    pub durable: u64,
    /// Offset behind it.
    pub end: u64,
    pub payload: Bytes,
}

impl SegmentHeader {
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend(SEGMENT_MAGIC.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.previous_end.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let sum = u32_at(bytes, 24)?;
        let valid = u64_at(bytes, 0)? == SEGMENT_MAGIC && crc32fast::hash(&bytes[..24]) == sum;
        valid.then_some(Self { number: u64_at(bytes, 8)?, previous_end: u64_at(bytes, 16)? })
    }
}

/// Encodes one frame for `offset` of `segment`.
pub fn encode(segment: u64, offset: u64, durable: u64, records: &[Record]) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_HEADER as usize];
    for record in records {
        let (kind, index, term, data) = match record {
            Record::Entry(entry) => (1, entry.index, entry.term, &entry.data[..]),
            Record::HardState(data) => (2, 0, 0, &data[..]),
            Record::Reset(index) => (3, *index, 0, &[][..]),
        };
        bytes.push(kind);
        bytes.extend(u32::try_from(data.len()).expect("entries are bounded").to_le_bytes());
        bytes.extend(index.to_le_bytes());
        bytes.extend(term.to_le_bytes());
        bytes.extend(data);
    }
    let length = u32::try_from(bytes.len() as u64 - FRAME_HEADER).expect("frames are bounded");
    bytes[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&offset.to_le_bytes());
    bytes[24..32].copy_from_slice(&durable.to_le_bytes());
    let sum = checksum(&bytes);
    bytes[32..36].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The frame at `offset` of the segment's bytes, if it is whole.
pub fn decode(segment: u64, bytes: &Bytes, offset: u64) -> Option<Frame> {
    let at = usize::try_from(offset).ok()?;
    let rest = bytes.get(at..)?;
    let here = u32_at(rest, 0)? == FRAME_MAGIC && u64_at(rest, 8)? == segment && u64_at(rest, 16)? == offset;
    let total = (FRAME_HEADER as usize).checked_add(u32_at(rest, 4)? as usize)?;
    let whole = here.then(|| rest.get(..total)).flatten()?;
    (checksum(whole) == u32_at(whole, 32)?).then_some(())?;
    Some(Frame {
        durable: u64_at(whole, 24)?,
        end: offset + total as u64,
        payload: bytes.slice(at + FRAME_HEADER as usize..at + total),
    })
}

/// Whether a whole frame behind `offset` says that `offset` was durable.
pub fn was_durable(segment: u64, bytes: &Bytes, offset: u64) -> bool {
    let magic = FRAME_MAGIC.to_le_bytes();
    let start = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(1).min(bytes.len());
    bytes[start..].windows(magic.len()).enumerate().filter(|(_, window)| **window == magic).any(|(at, _)| {
        decode(segment, bytes, (start + at) as u64).is_some_and(|frame| frame.durable > offset)
    })
}

/// The records of a frame's payload; `None` where the checksum is right and the content is not, which is our own fault.
pub fn records(payload: &Bytes) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let head = payload.get(at..at + RECORD_HEADER)?;
        let (index, term) = (u64_at(head, 5)?, u64_at(head, 13)?);
        let start = at + RECORD_HEADER;
        let end = start.checked_add(u32_at(head, 1)? as usize).filter(|end| *end <= payload.len())?;
        let data = payload.slice(start..end);
        records.push(match head[0] {
            1 => Record::Entry(LogEntry { index, term, data }),
            2 => Record::HardState(data),
            3 => Record::Reset(index),
            _ => return None,
        });
        at = end;
    }
    Some(records)
}

fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..32]);
    hasher.update(&frame[FRAME_HEADER as usize..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
}
