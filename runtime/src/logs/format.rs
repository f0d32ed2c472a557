//! One entry as one line of a log file, and back.

use jiff::Timestamp;

use super::{Entry, Stream};

/// Longest line that an entry can make: time, stream, tag and spaces take 41 bytes.
pub const LINE_LIMIT_BYTES: usize = super::ENTRY_LIMIT_BYTES + 64;

/// What entries of one time and stream begin with. Made once for many, as formatting a time costs
/// more than all the rest.
#[derive(Debug)]
pub struct Prefix(String);

impl Prefix {
    pub fn new(time: Timestamp, stream: Stream) -> Self {
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        Self(format!("{time:.9} {stream} "))
    }

    /// Appends an entry to `out`. `text` holds no newline.
    pub fn append(&self, out: &mut Vec<u8>, partial: bool, text: &[u8]) {
        out.extend_from_slice(self.0.as_bytes());
        out.extend_from_slice(if partial { b"P " } else { b"F " });
        out.extend_from_slice(text);
        out.push(b'\n');
    }
}

/// Reads a line without its newline; `None` where it is not an entry.
pub fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let partial = match fields.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Entry { time, stream, bytes: fields.next()?.to_vec(), partial })
}

/// Whether a line of a log file ends a line of the container.
pub fn ends_line(line: &[u8]) -> bool {
    line.splitn(4, |byte| *byte == b' ').nth(2) == Some(b"F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let time: Timestamp = "2026-11-03T10:11:12Z".parse().unwrap();
        let mut out = Vec::new();
        Prefix::new(time, Stream::Stderr).append(&mut out, true, b"a  b\xff ");
        assert_eq!(out, b"2026-11-03T10:11:12.000000000Z stderr P a  b\xff \n");
        let entry = parse(&out[..out.len() - 1]).unwrap();
        let expect = Entry { time, stream: Stream::Stderr, bytes: b"a  b\xff ".to_vec(), partial: true };
        assert_eq!(entry, expect);
        assert!(!ends_line(&out));
    }

    #[test]
    fn a_torn_line_is_not_an_entry() {
        for line in
            [&b""[..], b"2026-11-03T10:11:12Z stdout F", b"x stdout F y", b"2026-11-03T10:11:12Z stdin F y"]
        {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
