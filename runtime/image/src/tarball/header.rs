//! The fixed fields of a tar header block.

use super::Time;

pub(super) const BLOCK_BYTES: usize = 512;

const CHECKSUM: std::ops::Range<usize> = 148..156;

/// A block whose checksum is right.
pub(super) struct Header([u8; BLOCK_BYTES]);

impl Header {
    pub(super) fn parse(block: [u8; BLOCK_BYTES]) -> Result<Self, &'static str> {
        const WRONG: &str = "a header has a wrong checksum, so this is no tar archive or a damaged one";
        let stored = number(&block[CHECKSUM]).map_err(|_| WRONG)?;
        let byte_at = |(at, byte): (usize, &u8)| if CHECKSUM.contains(&at) { b' ' } else { *byte };
        let unsigned: u64 = block.iter().enumerate().map(|entry| u64::from(byte_at(entry))).sum();
        // Some historical tars summed signed characters.
        let signed: i64 = block.iter().enumerate().map(|entry| i64::from(byte_at(entry) as i8)).sum();
        if stored != unsigned && i64::try_from(stored) != Ok(signed) {
            return Err(WRONG);
        }
        Ok(Self(block))
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// POSIX splits long names in two; GNU uses the same bytes for something else.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if &self.0[257..263] == b"ustar\0" { text(&self.0[345..500]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u64, &'static str> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Result<u64, &'static str> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Result<u64, &'static str> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Result<u64, &'static str> {
        number(&self.0[124..136])
    }

    /// Times before 1970 or malformed ones are 1970: they are not worth refusing an image for.
    pub(super) fn mtime(&self) -> Time {
        let seconds = number(&self.0[136..148]).ok().and_then(|seconds| i64::try_from(seconds).ok());
        Time { seconds: seconds.unwrap_or(0), nanoseconds: 0 }
    }

    pub(super) fn device_major(&self) -> Result<u64, &'static str> {
        number(&self.0[329..337])
    }

    pub(super) fn device_minor(&self) -> Result<u64, &'static str> {
        number(&self.0[337..345])
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits between blanks, or GNU's base 256 where the first bit is set. An empty field is 0.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    if field[0] & 0x80 != 0 {
        return base_256(field);
    }
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => {
            let shifted = value.checked_mul(8).ok_or("a number overflows")?;
            Ok(shifted + u64::from(digit - b'0'))
        }
        _ => Err("a numeric field is not octal"),
    })
}

fn base_256(field: &[u8]) -> Result<u64, &'static str> {
    let first = field[0];
    if first & 0x40 != 0 {
        return Err("a number is negative");
    }
    field[1..].iter().try_fold(u64::from(first & 0x3f), |value, byte| {
        let shifted = value.checked_mul(256).ok_or("a number overflows")?;
        Ok(shifted + u64::from(*byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"  644 \0 "), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0"), Ok(0));
        assert_eq!(number(&[0x80, 0, 1, 0]), Ok(256));
        assert!(number(b"+644\0").is_err());
        assert!(number(b"0x1f\0").is_err());
        assert!(number(&[0xff; 12]).is_err(), "negative");
        assert!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "more than 64 bits");
    }
}
