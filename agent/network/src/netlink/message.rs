//! Encoding and decoding of netlink messages and their attributes.

use std::net::Ipv4Addr;

/// Length of `struct nlmsghdr`.
pub const HEADER_LENGTH: usize = 16;
const ALIGNMENT: usize = 4;
const ATTRIBUTE_HEADER_LENGTH: usize = 4;
const NESTED: u16 = 1 << 15;
/// The type bits of an attribute, without the flags for nesting and byte order.
const TYPE_MASK: u16 = 0x3fff;

/// Messages that are sent together. Each knows in words what it asks for, so that a refusal can be named.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    /// Where the message starts in the batch.
    pub offset: usize,
    /// What it does: "add route 10.0.0.0/8".
    pub action: String,
    /// Error numbers that mean that there is nothing to do.
    pub tolerated: &'static [i32],
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Appends a message. `header` is the subsystem's fixed header (`struct ifinfomsg`, `struct nfgenmsg` …).
    pub fn push(
        &mut self,
        action: impl Into<String>,
        kind: u16,
        flags: i32,
        header: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.push_tolerating(action, &[], kind, flags, header, body);
    }

    /// Appends a message of which some errors are as good as success.
    pub fn push_tolerating(
        &mut self,
        action: impl Into<String>,
        tolerated: &'static [i32],
        kind: u16,
        flags: i32,
        header: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        let offset = self.bytes.len();
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).expect("netlink flags have 16 bits");
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]); // The socket fills in the sequence number; port 0 is the kernel.
        self.bytes.extend_from_slice(header);
        pad(&mut self.bytes);
        body(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - offset).expect("a message is far below 4 GiB");
        self.bytes[offset..offset + 4].copy_from_slice(&length.to_ne_bytes());
        self.parts.push(Part { offset, action: action.into(), tolerated });
    }
}

/// Appends attributes to a message or to an attribute that nests others.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |bytes| bytes.extend_from_slice(value));
    }

    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// Host byte order, as rtnetlink wants it.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Network byte order, as nf_tables wants it.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub fn address(&mut self, kind: u16, value: Ipv4Addr) {
        self.bytes(kind, &value.octets());
    }

    /// Text with the terminating zero that the kernel expects.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |bytes| {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        });
    }

    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.attribute(kind | NESTED, |bytes| body(&mut Attributes { bytes }));
    }

    /// An attribute that holds a fixed header and then attributes (the peer of a veth pair is the only one).
    pub fn nest_after(&mut self, kind: u16, header: &[u8], body: impl FnOnce(&mut Attributes<'_>)) {
        self.attribute(kind, |bytes| {
            bytes.extend_from_slice(header);
            body(&mut Attributes { bytes });
        });
    }

    fn attribute(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        value(self.bytes);
        let length =
            u16::try_from(self.bytes.len() - offset).expect("callers keep an attribute below 64 KiB");
        self.bytes[offset..offset + 2].copy_from_slice(&length.to_ne_bytes());
        pad(self.bytes);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

/// One attribute of a message from the kernel. Values too short for what is asked of them read as `None`.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    pub kind: u16,
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes in `bytes`, up to the first that is malformed.
    pub fn all(mut bytes: &'a [u8]) -> impl Iterator<Item = Attribute<'a>> {
        std::iter::from_fn(move || {
            let header = bytes.get(..ATTRIBUTE_HEADER_LENGTH)?;
            let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
            let value = bytes.get(ATTRIBUTE_HEADER_LENGTH..length)?;
            bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
            Some(Attribute { kind, value })
        })
    }

    /// The value of the first attribute of that kind in `bytes`.
    pub fn find(bytes: &'a [u8], kind: u16) -> Option<Attribute<'a>> {
        Self::all(bytes).find(|attribute| attribute.kind == kind)
    }

    /// The value at the end of a path of nested attributes.
    pub fn find_path(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
        path.iter().try_fold(bytes, |bytes, &kind| Some(Self::find(bytes, kind)?.value))
    }

    pub fn u32(self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.value.get(..4)?.try_into().ok()?))
    }

    pub fn be16(self) -> Option<u16> {
        Some(u16::from_be_bytes(self.value.get(..2)?.try_into().ok()?))
    }

    pub fn be32(self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.get(..4)?.try_into().ok()?))
    }

    pub fn address(self) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.value.get(..4)?.try_into().ok()?;
        Some(octets.into())
    }

    pub fn text(self) -> Option<&'a str> {
        let end = self.value.iter().position(|&byte| byte == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_reads_back() {
        let mut batch = Batch::new();
        batch.push("test", 7, 0, &[1, 2, 3, 4], |a| {
            a.text(1, "abc");
            a.nest(2, |a| {
                a.be32(1, 9);
                a.u8(3, 5);
            });
        });
        let body = &batch.bytes[HEADER_LENGTH + 4..];
        assert_eq!(Attribute::find(body, 1).unwrap().text(), Some("abc"));
        let nested = Attribute::find(body, 2).unwrap().value;
        assert_eq!(Attribute::find(nested, 1).unwrap().be32(), Some(9));
        assert_eq!(Attribute::find_path(body, &[2, 3]), Some(&[5][..]));
        assert_eq!(batch.bytes.len() % ALIGNMENT, 0);
    }

    #[test]
    fn malformed_attributes_end_the_list() {
        assert_eq!(Attribute::all(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(Attribute::all(&[200, 0, 1, 0, 1, 1]).count(), 0);
        assert_eq!(Attribute::all(&[5, 0, 1, 0, 9]).count(), 1);
    }
}
