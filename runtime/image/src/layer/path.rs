//! What an entry's path may be, and what its name means.

/// A path below the layer's root: components without `.`, `..`, empty ones or a leading slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryPath<'a> {
    components: Vec<&'a [u8]>,
}

impl<'a> EntryPath<'a> {
    /// Absolute paths are taken from the layer's root, as tar does; the rest of a sentence tells why one is refused.
    pub(super) fn parse(path: &'a [u8], max_depth: usize) -> Result<Self, String> {
        let components: Vec<&[u8]> = path
            .split(|byte| *byte == b'/')
            .filter(|component| !component.is_empty() && *component != b".")
            .collect();
        if components.contains(&&b".."[..]) {
            return Err("leads out of its directory with `..`".into());
        }
        if components.len() > max_depth {
            return Err(format!("is more than {max_depth} directories deep"));
        }
        Ok(Self { components })
    }

    /// Parent directory and name; `None` for the root itself.
    pub(super) fn split(&self) -> Option<(Vec<u8>, &'a [u8])> {
        let (name, parent) = self.components.split_last()?;
        Some((parent.join(&b'/'), name))
    }

    /// Whether some component is AUFS's own bookkeeping, which Docker skips.
    pub(super) fn is_bookkeeping(&self) -> bool {
        self.components.iter().any(|name| name.starts_with(b".wh..wh.") && *name != OPAQUE)
    }

    /// Whether the path goes through something that is a whiteout, and so has no children.
    pub(super) fn is_below_whiteout(&self) -> bool {
        self.components
            .split_last()
            .is_some_and(|(_, parents)| parents.iter().any(|name| name.starts_with(WHITEOUT_PREFIX)))
    }
}

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a name means in a layer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// Itself.
    Ordinary,
    /// The directory hides what lower layers have in it.
    Opaque,
    /// This name is hidden from lower layers.
    Whiteout(&'a [u8]),
}

impl<'a> Meaning<'a> {
    pub(super) fn of(name: &'a [u8]) -> Result<Self, String> {
        match name.strip_prefix(WHITEOUT_PREFIX) {
            None => Ok(Self::Ordinary),
            Some(_) if name == OPAQUE => Ok(Self::Opaque),
            Some(b"" | b"." | b"..") => Err("is a whiteout of no file".into()),
            Some(hidden) => Ok(Self::Whiteout(hidden)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(path: &str) -> Option<(String, String)> {
        let parsed = EntryPath::parse(path.as_bytes(), 4).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        parsed.split().map(|(parent, name)| (text(&parent), text(name)))
    }

    #[test]
    fn paths_are_relative_to_the_root() {
        let pair = |parent: &str, name: &str| Some((parent.to_owned(), name.to_owned()));
        assert_eq!(split("./a//b/c"), pair("a/b", "c"));
        assert_eq!(split("/etc/passwd"), pair("etc", "passwd"));
        assert_eq!(split("a/"), pair("", "a"));
        assert_eq!(split("./"), None);
        for bad in ["..", "a/../b", "/../a", "a/..", "1/2/3/4/5"] {
            assert!(EntryPath::parse(bad.as_bytes(), 4).is_err(), "{bad}");
        }
        assert!(EntryPath::parse(b"..a/b..", 4).is_ok());
    }

    #[test]
    fn whiteouts_have_a_name() {
        assert_eq!(Meaning::of(b"a"), Ok(Meaning::Ordinary));
        assert_eq!(Meaning::of(b".wh.a"), Ok(Meaning::Whiteout(b"a")));
        assert_eq!(Meaning::of(b".wh..wh..opq"), Ok(Meaning::Opaque));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(Meaning::of(bad).is_err());
        }
    }
}
