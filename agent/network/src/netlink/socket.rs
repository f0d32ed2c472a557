//! A netlink socket: sends batches, reads their acknowledgements and dumps.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use thiserror::Error;

use super::message::{Attribute, Attributes, Batch, HEADER_LENGTH};

/// The kernel answers within the call; this bounds the wait on a machine that is in trouble.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The kernel fills dumps in pieces of at most 32 KiB.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// Acknowledgements waiting to be read take about 1 KiB each of the socket's buffer (208 KiB by default).
const MESSAGES_PER_SEND: usize = 128;
/// A dump that was interrupted by a change is started again at most this often.
const DUMP_ATTEMPTS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subsystem {
    Route,
    Netfilter,
}

/// A request to the kernel that did not succeed.
#[derive(Debug, Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket for {subsystem:?}")]
    Open { subsystem: Subsystem, source: io::Error },
    #[error("cannot talk to the kernel to {action}")]
    Talk { action: String, source: io::Error },
    #[error("the kernel refused to {action}{}", hint(.detail))]
    Refused { action: String, detail: Option<String>, source: io::Error },
    #[error("the kernel's tables keep changing while asked to {action}")]
    Unsettled { action: String },
}

fn hint(detail: &Option<String>) -> String {
    detail.as_ref().map_or_else(String::new, |detail| format!(" ({detail})"))
}

impl NetlinkError {
    /// Error number of the kernel's refusal.
    pub fn refusal(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Open { .. } | Self::Talk { .. } | Self::Unsettled { .. } => None,
        }
    }
}

/// An open socket. It stays in the network namespace in which it was opened, whatever thread uses it later.
#[derive(Debug)]
pub struct Socket {
    socket: netlink_sys::Socket,
    /// Number of the next message.
    sequence: u32,
}

/// What one message from the kernel says.
enum Answer {
    Acknowledged,
    Refused { errno: i32, detail: Option<String> },
    Done,
    Data,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(subsystem: Subsystem) -> Result<Self, NetlinkError> {
        let protocol = match subsystem {
            Subsystem::Route => NETLINK_ROUTE,
            Subsystem::Netfilter => NETLINK_NETFILTER,
        };
        let open = || {
            let mut socket = netlink_sys::Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            let limit = TimeVal::new(ANSWER_LIMIT.as_secs().cast_signed(), 0);
            setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NetlinkError::Open { subsystem, source })?;
        Ok(Self { socket, sequence: 1 })
    }

    /// Sends independent messages and reads every acknowledgement. All are tried; the first refusal is returned.
    pub fn execute(&mut self, mut batch: Batch) -> Result<(), NetlinkError> {
        let mut result = Ok(());
        let total = batch.parts.len();
        for start in (0..total).step_by(MESSAGES_PER_SEND) {
            let end = (start + MESSAGES_PER_SEND).min(total);
            let first = self.number(&mut batch, start..end, libc::NLM_F_ACK);
            let until = batch.parts.get(end).map_or(batch.bytes.len(), |part| part.offset);
            self.send(&batch.bytes[batch.parts[start].offset..until], &batch.parts[start].action)?;
            let outcome = self.read_acknowledgements(&batch, start, first, end - start);
            result = result.and(outcome);
        }
        result
    }

    /// Sends messages that the kernel takes all or none. Its last message is acknowledged after all errors are reported.
    pub fn transact(&mut self, mut batch: Batch) -> Result<(), NetlinkError> {
        let total = batch.parts.len();
        // The end marker is last; the last real message carries the acknowledgement.
        let first = self.number(&mut batch, 0..total, 0);
        let last = total.checked_sub(2).expect("a transaction has a begin, an end and something between");
        set_flag(&mut batch.bytes, batch.parts[last].offset, libc::NLM_F_ACK);
        let needed = batch.bytes.len().saturating_mul(2);
        if needed > 128 * 1024 {
            let _ = setsockopt(&self.socket, sockopt::SndBufForce, &needed);
        }
        self.send(&batch.bytes, &batch.parts[last].action)?;
        let mut result = Ok(());
        let mut finished = false;
        while !finished {
            self.receive(&batch.parts[last].action, |sequence, answer, _| {
                let index = sequence.wrapping_sub(first) as usize;
                let Some(part) = batch.parts.get(index) else { return };
                if let Answer::Refused { errno, detail } = answer
                    && result.is_ok()
                {
                    let source = io::Error::from_raw_os_error(errno);
                    result = Err(NetlinkError::Refused { action: part.action.clone(), detail, source });
                }
                // A refused begin marker is the only answer that there will be.
                finished |= index == last || index == 0;
            })?;
        }
        result
    }

    /// Asks for a list; `each` gets the body of every message (fixed header and attributes).
    pub fn dump(
        &mut self,
        action: &str,
        kind: u16,
        header: &[u8],
        body: impl Fn(&mut Attributes<'_>),
        each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        self.ask(action, kind, libc::NLM_F_DUMP, header, body, each)
    }

    /// Asks for one thing, as [`Self::dump`] does for many.
    pub fn get(
        &mut self,
        action: &str,
        kind: u16,
        header: &[u8],
        body: impl Fn(&mut Attributes<'_>),
        each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        self.ask(action, kind, libc::NLM_F_ACK, header, body, each)
    }

    fn ask(
        &mut self,
        action: &str,
        kind: u16,
        flags: i32,
        header: &[u8],
        body: impl Fn(&mut Attributes<'_>),
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut batch = Batch::new();
            batch.push(action, kind, flags, header, &body);
            let first = self.number(&mut batch, 0..1, 0);
            self.send(&batch.bytes, action)?;
            let mut bodies = Vec::new();
            let mut end = None;
            let mut interrupted = false;
            while end.is_none() {
                self.receive(action, |sequence, answer, message| {
                    if sequence != first {
                        return;
                    }
                    interrupted |= flags_of(message) & DUMP_INTERRUPTED != 0;
                    match answer {
                        Answer::Data => bodies.push(message[HEADER_LENGTH..].to_vec()),
                        Answer::Done | Answer::Acknowledged => end = Some(Ok(())),
                        Answer::Refused { errno, detail } => {
                            let source = io::Error::from_raw_os_error(errno);
                            end = Some(Err(NetlinkError::Refused {
                                action: action.to_owned(),
                                detail,
                                source,
                            }));
                        }
                    }
                })?;
            }
            end.unwrap_or(Ok(()))?;
            if !interrupted {
                bodies.iter().for_each(|body| each(body));
                return Ok(());
            }
        }
        Err(NetlinkError::Unsettled { action: action.to_owned() })
    }

    /// Numbers a range of the batch's messages; gives the first number.
    fn number(&mut self, batch: &mut Batch, range: std::ops::Range<usize>, flags: i32) -> u32 {
        let count = u32::try_from(range.len()).expect("a batch has fewer than 2^32 messages");
        let first = self.sequence;
        self.sequence = first.wrapping_add(count);
        for (sequence, part) in (0..count).zip(&batch.parts[range]) {
            let at = part.offset + 8;
            batch.bytes[at..at + 4].copy_from_slice(&first.wrapping_add(sequence).to_ne_bytes());
            if flags != 0 {
                set_flag(&mut batch.bytes, part.offset, flags);
            }
        }
        first
    }

    fn send(&self, bytes: &[u8], action: &str) -> Result<(), NetlinkError> {
        match self.socket.send(bytes, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(NetlinkError::Talk { action: action.to_owned(), source }),
        }
    }

    fn read_acknowledgements(
        &self,
        batch: &Batch,
        start: usize,
        first: u32,
        count: usize,
    ) -> Result<(), NetlinkError> {
        let mut result = Ok(());
        let mut missing = count;
        while missing > 0 {
            self.receive(&batch.parts[start].action, |sequence, answer, _| {
                let index = sequence.wrapping_sub(first) as usize;
                if index >= count {
                    return;
                }
                let part = &batch.parts[start + index];
                match answer {
                    Answer::Refused { errno, detail }
                        if result.is_ok() && !part.tolerated.contains(&errno) =>
                    {
                        let source = io::Error::from_raw_os_error(errno);
                        result = Err(NetlinkError::Refused { action: part.action.clone(), detail, source });
                    }
                    Answer::Acknowledged | Answer::Refused { .. } | Answer::Done => {}
                    Answer::Data => return,
                }
                missing = missing.saturating_sub(1);
            })?;
        }
        result
    }

    /// Reads one datagram and hands on its messages: sequence number, meaning, whole message.
    fn receive(&self, action: &str, mut each: impl FnMut(u32, Answer, &[u8])) -> Result<(), NetlinkError> {
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER_BYTES);
        loop {
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(NetlinkError::Talk { action: action.to_owned(), source }),
            }
        }
        let mut rest = buffer.as_slice();
        while let Some(length) = rest.get(..4) {
            let length = u32::from_ne_bytes([length[0], length[1], length[2], length[3]]) as usize;
            let Some(message) = rest.get(..length).filter(|message| message.len() >= HEADER_LENGTH) else {
                break;
            };
            let sequence = u32::from_ne_bytes([message[8], message[9], message[10], message[11]]);
            each(sequence, Answer::of(message), message);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

const DUMP_INTERRUPTED: i32 = libc::NLM_F_DUMP_INTR;
/// The answer repeats only the header of what it answers (`NLM_F_CAPPED`).
const CAPPED: i32 = 0x100;
/// Attributes follow that explain the error (`NLM_F_ACK_TLVS`).
const EXPLAINED: i32 = 0x200;
/// Text of an explanation (`NLMSGERR_ATTR_MSG`).
const EXPLANATION_TEXT: u16 = 1;

impl Answer {
    fn of(message: &[u8]) -> Self {
        let kind = i32::from(u16::from_ne_bytes([message[4], message[5]]));
        let body = &message[HEADER_LENGTH..];
        let status = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        match kind {
            libc::NLMSG_DONE if status < 0 => Self::Refused { errno: -status, detail: None },
            libc::NLMSG_DONE => Self::Done,
            libc::NLMSG_ERROR if status == 0 => Self::Acknowledged,
            libc::NLMSG_ERROR => Self::Refused { errno: -status, detail: explanation(message) },
            _ => Self::Data,
        }
    }
}

fn explanation(message: &[u8]) -> Option<String> {
    let flags = flags_of(message);
    if flags & EXPLAINED == 0 {
        return None;
    }
    let error = message.get(HEADER_LENGTH + 4..)?;
    let repeated = u32::from_ne_bytes(error.get(..4)?.try_into().ok()?) as usize;
    let skip = if flags & CAPPED == 0 { repeated } else { HEADER_LENGTH };
    let text = Attribute::find(error.get(skip.next_multiple_of(4)..)?, EXPLANATION_TEXT)?.text()?;
    Some(text.to_owned())
}

fn flags_of(message: &[u8]) -> i32 {
    i32::from(u16::from_ne_bytes([message[6], message[7]]))
}

fn set_flag(bytes: &mut [u8], message: usize, flags: i32) {
    let at = message + 6;
    let old = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let new = old | u16::try_from(flags).expect("netlink flags have 16 bits");
    bytes[at..at + 2].copy_from_slice(&new.to_ne_bytes());
}
