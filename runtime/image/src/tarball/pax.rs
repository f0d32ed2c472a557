//! What PAX records and GNU long names say instead of the header.

use super::Time;

/// Linux's limit on the length of an xattr value.
const MAX_XATTR_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Overrides {
    /// Reads records of the form `LENGTH KEY=VALUE\n`; values may contain newlines, so only the length counts.
    pub(super) fn read(&mut self, mut records: &[u8]) -> Result<(), String> {
        while !records.is_empty() {
            let (record, rest) = split(records).ok_or("a PAX record is malformed")?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("a PAX record has no value")?;
            self.apply(&record[..equals], &record[equals + 1..])?;
            records = rest;
        }
        Ok(())
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"path" => self.path = some(value),
            b"linkpath" => self.link = some(value),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => return Err("sparse files are not supported".into()),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        if name.is_empty() || name.contains(&0) || name.len() > 255 || value.len() > MAX_XATTR_BYTES {
            return Err("an extended attribute has a name or value that Linux does not allow".into());
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// An empty value takes an override back.
fn some(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// The first record without length and newline, and the rest.
fn split(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = decimal(&records[..space]).ok().and_then(|length| usize::try_from(length).ok())?;
    let record = records.get(space + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &records[length..]))
}

fn decimal(digits: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| "a PAX number is malformed".into())
}

/// Seconds with an optional fraction; times before 1970 are 1970.
fn time(value: &[u8]) -> Result<Time, String> {
    if value.starts_with(b"-") {
        return Ok(Time::default());
    }
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    let seconds = i64::try_from(decimal(whole)?).map_err(|_| "a time is out of range")?;
    let mut digits = [b'0'; 9];
    for (digit, given) in digits.iter_mut().zip(fraction) {
        *digit = *given;
    }
    // Nine digits are less than 2^32.
    Ok(Time { seconds, nanoseconds: decimal(&digits)? as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(records: &[u8]) -> Result<Overrides, String> {
        let mut overrides = Overrides::default();
        overrides.read(records).map(|()| overrides)
    }

    #[test]
    fn records_are_delimited_by_their_length() {
        let overrides = read(b"12 path=a/b\n29 SCHILY.xattr.user.k=a\nb=c\n").unwrap();
        assert_eq!(overrides.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(overrides.xattrs, [(b"user.k".to_vec(), b"a\nb=c".to_vec())]);
        let time = read(b"20 mtime=1700000.25\n").unwrap().mtime.unwrap();
        assert_eq!(time, Time { seconds: 1_700_000, nanoseconds: 250_000_000 });
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in
            [&b"x"[..], b"5 a=b", b"99 a=b\n", b"0 a=b\n", b"1 a=b\n", b"6 abc\n", b"9 size=-\n", b"-1 a=b\n"]
        {
            assert!(read(bad).is_err(), "{:?}", bad.escape_ascii().to_string());
        }
        assert!(read(b"22 GNU.sparse.major=1\n").unwrap_err().contains("sparse"));
        assert!(read(b"18 size=1844674407370955161600\n").is_err());
    }
}
