//! The bytes of the log: frames of records behind a segment header.
//!
//! A frame is what one append wrote, and is valid as a whole or not at all. Its header says where it stands and up to
//! where the segment was durable when it was written: what a later frame calls durable was once whole, so if it is not
//! any more, the disk lost it. The last frames have no later one to vouch for them. They are told from torn ones by
//! marks: a segment is zero where nothing was written, and each piece of a frame (up to the end of its sector, of its
//! header, of itself) ends in a byte that is not zero. A power cut leaves a piece out, or its end, so a mark is zero; a
//! frame with all its marks and a wrong checksum was whole once.
//!
//! ```text
//! segment: magic 8 | segment number 8 | end of the segment before it 8 | size 8 | crc32 4 | zero 4 | frames …
//! frame:   magic 4 | payload length 4 | segment number 8 | own offset 8 | durable offset 8 | crc32 of the payload 4 |
//!          crc32 of all this 4 | mark 1 | payload | mark 1
//! payload: sealed with the data key for the frame's own place: records of: kind 1 | length 4 | index 8 | term 8 | data
//! ```
//! All numbers are little-endian. The last byte of every sector behind the segment header is a mark, and no part of the
//! above.

use bytes::Bytes;
use swarm_manager_core::door::LogEntry;

use crate::keys::{DataKey, OVERHEAD};

pub const SEGMENT_HEADER: u64 = 40;
const FRAME_HEADER: usize = 41;
const RECORD_HEADER: usize = 21;
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"swarmen1");
/// Without marks, and not encrypted.
const OLD_MAGICS: [u64; 2] = [u64::from_le_bytes(*b"swarmlg1"), u64::from_le_bytes(*b"swarmlg2")];
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"swfr");
/// What a disk writes as a whole, or at least from its beginning on.
pub const SECTOR: usize = 512;
const MARK: u8 = 0xa5;

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
    /// Of the whole file.
    pub size: u64,
}

/// What stands at an offset.
#[derive(Debug)]
pub enum Found {
    Frame(Frame),
    /// Nothing, or what a power cut left of a frame.
    Unfinished,
    /// A frame that was whole once.
    Rotten,
}

/// A frame found whole.
#[derive(Debug)]
pub struct Frame {
    durable: u64,
    /// Offset behind it.
    pub end: u64,
    sealed: Vec<u8>,
}

impl SegmentHeader {
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40);
        bytes.extend(SEGMENT_MAGIC.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.previous_end.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let sum = u32_at(bytes, 32)?;
        let valid = u64_at(bytes, 0)? == SEGMENT_MAGIC && crc32fast::hash(&bytes[..32]) == sum;
        valid.then_some(Self {
            number: u64_at(bytes, 8)?,
            previous_end: u64_at(bytes, 16)?,
            size: u64_at(bytes, 24)?,
        })
    }

    /// Whether the segment is of an earlier version of this format.
    pub fn is_of_old_version(bytes: &[u8]) -> bool {
        u64_at(bytes, 0).is_some_and(|magic| OLD_MAGICS.contains(&magic))
    }
}

/// Most bytes that a frame takes whose records have so many.
pub fn room(payload: u64) -> u64 {
    let bytes = (FRAME_HEADER + OVERHEAD) as u64 + payload + 1;
    bytes + bytes / (SECTOR as u64 - 1) + 2
}

/// Bytes of a record in a payload.
pub fn record_bytes(record: &Record) -> u64 {
    let data = match record {
        Record::Entry(entry) => entry.data.len(),
        Record::HardState(state) => state.len(),
        Record::Reset(_) => 0,
    };
    (RECORD_HEADER + data) as u64
}

/// Encodes one frame for `offset` of `segment`. Without records it only vouches for what is durable.
pub fn encode(key: &DataKey, segment: u64, offset: u64, durable: u64, records: &[Record]) -> Vec<u8> {
    let sealed = key.seal(&context(segment, offset, durable), &plain(records));
    let mut bytes = vec![0; FRAME_HEADER];
    bytes.extend(&sealed);
    let length = u32::try_from(sealed.len()).expect("frames are bounded");
    let sum = crc32fast::hash(&sealed);
    bytes[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&offset.to_le_bytes());
    bytes[24..32].copy_from_slice(&durable.to_le_bytes());
    bytes[32..36].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..36]);
    bytes[36..40].copy_from_slice(&sum.to_le_bytes());
    bytes[40] = MARK;
    bytes.push(MARK);
    with_marks(offset, &bytes)
}

/// What a frame's records are bound to: they open nowhere else.
fn context(segment: u64, offset: u64, durable: u64) -> Vec<u8> {
    let place = [segment, offset, durable].map(u64::to_le_bytes).concat();
    [&b"swarm log 1 "[..], &place].concat()
}

fn plain(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(records.iter().map(record_bytes).sum::<u64>() as usize);
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
    bytes
}

/// What stands at `offset` of the segment's bytes.
pub fn decode(segment: u64, bytes: &[u8], offset: u64) -> Found {
    let Some(header) = usize::try_from(offset).ok().and_then(|at| Piece::read(bytes, at, FRAME_HEADER))
    else {
        // No frame fits here, so nothing was ever written.
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        return if rest.iter().all(|byte| *byte == 0) { Found::Unfinished } else { Found::Rotten };
    };
    let Some(head) = FrameHeader::parse(&header.bytes, segment, offset) else { return header.judge() };
    let Some(body) = Piece::read(bytes, header.end, head.length + 1) else { return Found::Rotten };
    if crc32fast::hash(&body.bytes[..head.length]) != head.payload_sum {
        return body.judge();
    }
    let mut sealed = body.bytes;
    sealed.truncate(head.length);
    Found::Frame(Frame { durable: head.durable, end: body.end as u64, sealed })
}

/// Whether a whole frame behind `offset` says that `offset` was durable.
pub fn was_durable(segment: u64, bytes: &[u8], offset: u64) -> bool {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(1).min(bytes.len());
    let first = FRAME_MAGIC.to_le_bytes()[0];
    let candidates = (start..bytes.len()).filter(|at| bytes[*at] == first || is_mark(*at));
    candidates.into_iter().any(|at| match decode(segment, bytes, at as u64) {
        Found::Frame(frame) => frame.durable > offset,
        Found::Unfinished | Found::Rotten => false,
    })
}

/// Where the mark of the frame header at `offset` stands.
pub fn header_mark(offset: u64) -> u64 {
    let mut at = offset;
    let mut left = FRAME_HEADER;
    loop {
        if !is_mark(at as usize) {
            left -= 1;
            if left == 0 {
                return at;
            }
        }
        at += 1;
    }
}

impl Frame {
    /// The records of the frame at `offset`; `None` where it was sealed with another key or for another place.
    pub fn records(&self, key: &DataKey, segment: u64, offset: u64) -> Option<Vec<Record>> {
        let plain = key.open(&context(segment, offset, self.durable), &self.sealed)?;
        records(&Bytes::from(plain))
    }
}

fn records(payload: &Bytes) -> Option<Vec<Record>> {
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

struct FrameHeader {
    length: usize,
    durable: u64,
    payload_sum: u32,
}

impl FrameHeader {
    fn parse(bytes: &[u8], segment: u64, offset: u64) -> Option<Self> {
        let here = u32_at(bytes, 0)? == FRAME_MAGIC
            && u64_at(bytes, 8)? == segment
            && u64_at(bytes, 16)? == offset
            && crc32fast::hash(&bytes[..36]) == u32_at(bytes, 36)?;
        here.then_some(Self {
            length: u32_at(bytes, 4)? as usize,
            durable: u64_at(bytes, 24)?,
            payload_sum: u32_at(bytes, 32)?,
        })
    }
}

/// Bytes of a frame without the marks of its sectors.
struct Piece {
    bytes: Vec<u8>,
    /// Offset behind it.
    end: usize,
    /// Whether a sector's mark in it is zero.
    torn: bool,
}

impl Piece {
    /// `None`: the segment ends before.
    fn read(segment: &[u8], mut at: usize, count: usize) -> Option<Self> {
        if segment.len().checked_sub(at)? < count {
            return None;
        }
        let mut bytes = Vec::with_capacity(count);
        let mut torn = false;
        while bytes.len() < count {
            if is_mark(at) {
                torn |= *segment.get(at)? == 0;
                at += 1;
            }
            let run = (SECTOR - 1 - at % SECTOR).min(count - bytes.len());
            bytes.extend_from_slice(segment.get(at..at + run)?);
            at += run;
        }
        Some(Self { bytes, end: at, torn })
    }

    /// Of a piece that does not match its checksum. It ends in a mark.
    fn judge(&self) -> Found {
        let torn = self.torn || self.bytes.last() == Some(&0);
        if torn { Found::Unfinished } else { Found::Rotten }
    }
}

fn with_marks(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut marked = Vec::with_capacity(bytes.len() + bytes.len() / (SECTOR - 1) + 2);
    let mut at = usize::try_from(offset).expect("segments are far below the address space");
    let mut rest = bytes;
    while !rest.is_empty() {
        if is_mark(at) {
            marked.push(MARK);
            at += 1;
        }
        let (run, behind) = rest.split_at((SECTOR - 1 - at % SECTOR).min(rest.len()));
        marked.extend_from_slice(run);
        at += run.len();
        rest = behind;
    }
    marked
}

fn is_mark(at: usize) -> bool {
    at % SECTOR == SECTOR - 1
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
}
