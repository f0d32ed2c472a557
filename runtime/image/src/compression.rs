//! Decompression with a bound on what comes out: gzip, zstd and plain streams behind one reader.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use crate::Compression;

/// zstd's window is memory that the sender chooses; 64 MiB is what `zstd -19 --long=26` asks for, and RFC 8878
/// recommends that decoders support 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;
/// gzip reaches 1,032:1 on zeros; file systems of real images stay under 20:1.
const MAX_RATIO: u64 = 200;
/// What may come out before the ratio counts: layers of preallocated zeros are legitimate while they are small.
const RATIO_FREE_BYTES: u64 = 256 << 20;
const INPUT_BUFFER_BYTES: usize = 256 << 10;

/// How far a compressed stream may be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InflateLimits {
    /// Bytes that may come out at all.
    pub(crate) max_bytes: u64,
    /// Bytes that may come out whatever went in.
    pub(crate) ratio_free_bytes: u64,
}

impl InflateLimits {
    pub(crate) const fn up_to(max_bytes: u64) -> Self {
        Self { max_bytes, ratio_free_bytes: RATIO_FREE_BYTES }
    }
}

/// A stream that inflates beyond its limits; found inside the `io::Error` of [`Inflate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bomb {
    #[error("it holds more than {max_bytes} bytes when decompressed")]
    Size { max_bytes: u64 },
    #[error("it inflates to more than {MAX_RATIO} times its size")]
    Ratio,
}

/// Recognises a compressed stream by its first bytes, of which six are enough.
pub(crate) fn sniff(start: &[u8]) -> Compression {
    // A zstd stream may also begin with a skippable frame, 0x184D2A50 to 0x184D2A5F in little endian.
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// The decompressed content of a stream.
pub(crate) struct Inflate<R: Read> {
    decoder: Decoder<BufReader<Counted<R>>>,
    consumed: Rc<Cell<u64>>,
    produced: u64,
    limits: InflateLimits,
}

enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: Read> Inflate<R> {
    pub(crate) fn new(source: R, compression: Compression, limits: InflateLimits) -> io::Result<Self> {
        let (source, consumed) = Counted::buffered(source);
        Self::over(source, consumed, compression, limits)
    }

    /// Decides by the first bytes how the stream is compressed.
    pub(crate) fn sniffed(source: R, limits: InflateLimits) -> io::Result<Self> {
        let (mut source, consumed) = Counted::buffered(source);
        let compression = sniff(source.fill_buf()?);
        Self::over(source, consumed, compression, limits)
    }

    fn over(
        source: BufReader<Counted<R>>,
        consumed: Rc<Cell<u64>>,
        compression: Compression,
        limits: InflateLimits,
    ) -> io::Result<Self> {
        let decoder = match compression {
            Compression::None => Decoder::Plain(source),
            Compression::Gzip => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { decoder, consumed, produced: 0, limits })
    }

    fn check(&self) -> Result<(), Bomb> {
        let InflateLimits { max_bytes, ratio_free_bytes } = self.limits;
        if self.produced > max_bytes {
            return Err(Bomb::Size { max_bytes });
        }
        let allowed = self.consumed.get().saturating_mul(MAX_RATIO).saturating_add(ratio_free_bytes);
        if self.produced > allowed { Err(Bomb::Ratio) } else { Ok(()) }
    }
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.decoder {
            Decoder::Plain(source) => source.read(buffer)?,
            Decoder::Gzip(decoder) => decoder.read(buffer)?,
            Decoder::Zstd(decoder) => decoder.read(buffer)?,
        };
        self.produced += read as u64;
        self.check().map_err(|bomb| io::Error::new(io::ErrorKind::InvalidData, bomb))?;
        Ok(read)
    }
}

/// Counts what a decoder consumes, for the ratio.
struct Counted<R> {
    source: R,
    consumed: Rc<Cell<u64>>,
}

impl<R: Read> Counted<R> {
    fn buffered(source: R) -> (BufReader<Self>, Rc<Cell<u64>>) {
        let consumed = Rc::new(Cell::new(0));
        let counted = Self { source, consumed: Rc::clone(&consumed) };
        (BufReader::with_capacity(INPUT_BUFFER_BYTES, counted), consumed)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.consumed.set(self.consumed.get() + read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(bytes: &[u8], limits: InflateLimits) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Inflate::sniffed(bytes, limits)?.read_to_end(&mut out)?;
        Ok(out)
    }

    const SMALL: InflateLimits = InflateLimits { max_bytes: 10 << 20, ratio_free_bytes: 64 << 10 };

    #[test]
    fn every_compression_is_recognised_and_undone() {
        let text = b"some text, not much".repeat(10);
        for packed in [text.clone(), gzip(&text), zstd::encode_all(&text[..], 3).unwrap()] {
            assert_eq!(inflate(&packed, SMALL).unwrap(), text);
        }
        let twice = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(inflate(&twice, SMALL).unwrap(), b"ab", "a gzip file may have several members");
        assert_eq!(inflate(b"", SMALL).unwrap(), b"");
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        let text: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        for packed in [gzip(&text), zstd::encode_all(&text[..], 3).unwrap()] {
            for cut in [6, packed.len() / 2, packed.len() - 1] {
                assert!(inflate(&packed[..cut], SMALL).is_err(), "{cut} of {}", packed.len());
            }
        }
    }

    #[track_caller]
    fn bomb(packed: &[u8], limits: InflateLimits, expect: Bomb) {
        let error = inflate(packed, limits).unwrap_err().into_inner().unwrap();
        assert_eq!(*error.downcast_ref::<Bomb>().unwrap(), expect);
    }

    #[test]
    fn bombs_are_stopped_by_size_and_by_ratio() {
        let zeros = vec![0; 2 << 20];
        for packed in [gzip(&zeros), zstd::encode_all(&zeros[..], 3).unwrap()] {
            bomb(&packed, SMALL, Bomb::Ratio);
            bomb(&packed, InflateLimits::up_to(1 << 20), Bomb::Size { max_bytes: 1 << 20 });
        }
    }

    #[test]
    fn a_zstd_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(b"text").unwrap();
        assert!(inflate(&encoder.finish().unwrap(), SMALL).is_err());
    }
}
