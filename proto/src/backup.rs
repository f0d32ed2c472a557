//! The file that a backup is: a header that anybody may read, the state in pieces, a checksum over all of it.
//!
//! ```text
//! magic 8 | header length 4 | BackupHeader | pieces of: length 4 | bytes … | zero 4 | SHA-256 of all before 32
//! ```
//! All numbers are big-endian. What the pieces hold, and whether it is encrypted, is the managers' affair: this is what
//! whoever has the file can check without them. Nothing of a file counts before its checksum was seen to match.

use prost::Message;
use sha2::{Digest, Sha256};

use crate::v1::BackupHeader;

const MAGIC: &[u8; 8] = b"SWMBKUP1";
/// A few hundred bytes, and some for each manager.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// What a writer puts into a piece, and what encryption adds to it.
pub const PIECE_BYTES: usize = 256 << 10;
const MAX_PIECE_BYTES: usize = PIECE_BYTES + 64;
const SUM_BYTES: usize = 32;

/// Why a file is no backup, or not a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    #[error("it is not a backup of a cluster, or one of another version of swarmd")]
    Magic,
    #[error("its header cannot be read")]
    Header,
    #[error("it is damaged: a piece of it is longer than any is written")]
    Piece,
    #[error("it is not complete: it ends too early")]
    Truncated,
    #[error("it is damaged: it does not match its checksum")]
    Checksum,
    #[error("it is damaged: something follows its end")]
    Surplus,
}

/// Makes the bytes of a file, one after the other.
#[derive(Debug)]
pub struct Writer(Sha256);

impl Writer {
    /// Also the file's beginning.
    pub fn begin(header: &BackupHeader) -> (Self, Vec<u8>) {
        let header = header.encode_to_vec();
        let length = u32::try_from(header.len()).expect("headers are short").to_be_bytes();
        let bytes = [&MAGIC[..], &length, &header].concat();
        (Self(Sha256::new_with_prefix(&bytes)), bytes)
    }

    /// The next piece: not empty, and of at most [`PIECE_BYTES`] before it was encrypted.
    pub fn piece(&mut self, piece: &[u8]) -> Vec<u8> {
        assert!(!piece.is_empty() && piece.len() <= MAX_PIECE_BYTES, "a piece has {} bytes", piece.len());
        let length = u32::try_from(piece.len()).expect("pieces are short").to_be_bytes();
        let bytes = [&length[..], piece].concat();
        self.0.update(&bytes);
        bytes
    }

    /// The file's end.
    pub fn end(mut self) -> Vec<u8> {
        self.0.update([0; 4]);
        [&[0; 4][..], &self.0.finalize()].concat()
    }
}

/// Takes a file in any cuts.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    sum: Sha256,
    rest: Vec<u8>,
    header: Option<BackupHeader>,
    ended: bool,
}

impl Reader {
    /// Hands over the next bytes; gives the pieces that they complete.
    ///
    /// # Errors
    /// It is no backup, or is damaged.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, BackupError> {
        self.rest.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        loop {
            if self.ended {
                return self.check_end(pieces);
            }
            if self.header.is_none() {
                if !self.read_header()? {
                    return Ok(pieces);
                }
                continue;
            }
            let Some(length) = number(&self.rest, 0) else { return Ok(pieces) };
            if length > MAX_PIECE_BYTES {
                return Err(BackupError::Piece);
            }
            if self.rest.len() < 4 + length {
                return Ok(pieces);
            }
            let frame = self.take(4 + length);
            if length == 0 {
                self.ended = true;
            } else {
                pieces.push(frame[4..].to_vec());
            }
        }
    }

    /// Once enough of the file came by.
    pub fn header(&self) -> Option<&BackupHeader> {
        self.header.as_ref()
    }

    /// All of the file was handed over.
    ///
    /// # Errors
    /// It is not whole.
    pub fn finish(self) -> Result<BackupHeader, BackupError> {
        if !self.ended || self.rest.len() < SUM_BYTES {
            return Err(
                if self.header.is_none() && !MAGIC.starts_with(&self.rest[..self.rest.len().min(8)]) {
                    BackupError::Magic
                } else {
                    BackupError::Truncated
                },
            );
        }
        self.header.ok_or(BackupError::Header)
    }

    fn read_header(&mut self) -> Result<bool, BackupError> {
        if self.rest.len() >= MAGIC.len() && !self.rest.starts_with(MAGIC) {
            return Err(BackupError::Magic);
        }
        let Some(length) = number(&self.rest, MAGIC.len()) else { return Ok(false) };
        if length > MAX_HEADER_BYTES {
            return Err(BackupError::Header);
        }
        let whole = MAGIC.len() + 4 + length;
        if self.rest.len() < whole {
            return Ok(false);
        }
        let bytes = self.take(whole);
        let header = BackupHeader::decode(&bytes[MAGIC.len() + 4..]).map_err(|_| BackupError::Header)?;
        self.header = Some(header);
        Ok(true)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.rest.split_off(count);
        let taken = std::mem::replace(&mut self.rest, rest);
        self.sum.update(&taken);
        taken
    }

    fn check_end(&self, pieces: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, BackupError> {
        match self.rest.len() {
            SUM_BYTES if self.sum.clone().finalize()[..] == self.rest[..] => Ok(pieces),
            SUM_BYTES => Err(BackupError::Checksum),
            0..SUM_BYTES => Ok(pieces),
            _ => Err(BackupError::Surplus),
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let header = BackupHeader { version: "1".to_owned(), taken_at: 7, ..BackupHeader::default() };
        let (mut writer, mut file) = Writer::begin(&header);
        file.extend(writer.piece(b"one"));
        file.extend(writer.piece(&[7; 500]));
        file.extend(writer.end());
        file
    }

    fn read(file: &[u8], cut: usize) -> Result<(BackupHeader, Vec<Vec<u8>>), BackupError> {
        let mut reader = Reader::default();
        let mut pieces = Vec::new();
        for bytes in file.chunks(cut) {
            pieces.extend(reader.push(bytes)?);
        }
        Ok((reader.finish()?, pieces))
    }

    #[test]
    fn a_file_is_read_as_it_is_written_in_any_cuts() {
        for cut in [1, 2, 7, 64, 10_000] {
            let (header, pieces) = read(&file(), cut).expect("whole");
            assert_eq!((header.taken_at, pieces), (7, vec![b"one".to_vec(), vec![7; 500]]), "cut by {cut}");
        }
    }

    #[test]
    fn a_flipped_byte_a_lost_end_and_a_surplus_are_found() {
        let whole = file();
        for at in 0..whole.len() {
            for flip in [1, 0x80] {
                let mut hurt = whole.clone();
                hurt[at] ^= flip;
                assert!(read(&hurt, 64).is_err(), "byte {at} xor {flip:#x}");
            }
            assert!(read(&whole[..at], 64).is_err(), "cut at {at}");
        }
        assert_eq!(read(&[&whole[..], b"x"].concat(), 64), Err(BackupError::Surplus));
        assert_eq!(read(b"something else entirely", 64), Err(BackupError::Magic));
        assert_eq!(read(b"", 64), Err(BackupError::Truncated));
    }
}
