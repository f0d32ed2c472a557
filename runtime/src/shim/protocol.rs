//! What daemon and shim say to each other, once, over the shim's standard input.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::launch::Failure;
use crate::process::ProcessId;
use crate::record::Directory;
use crate::runtime::LogLimits;

/// Longest answer: a failure's text.
const ANSWER_LIMIT_BYTES: u64 = 64 << 10;
/// Bits of the message that starts a container: which open files come with it, in this order.
const HAS_NETNS: u8 = 1;
const HAS_CGROUP: u8 = 2;

/// The open files that a container needs.
#[derive(Debug, Default)]
pub struct Files {
    pub netns: Option<OwnedFd>,
    /// The version 2 cgroup.
    pub cgroup: Option<OwnedFd>,
}

/// The shim's answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Started(ProcessId),
    Failed(Failure),
}

/// Arguments of a shim after the word `shim`, without the program.
pub fn arguments(directory: &Directory, limits: LogLimits) -> [OsString; 3] {
    [directory.path().into(), limits.file_bytes.to_string().into(), limits.files.to_string().into()]
}

pub fn parse_arguments(args: impl IntoIterator<Item = OsString>) -> Option<(Directory, LogLimits)> {
    let mut args = args.into_iter();
    let directory = PathBuf::from(args.next()?);
    let file_bytes = args.next()?.to_str()?.parse().ok()?;
    let files = args.next()?.to_str()?.parse().ok()?;
    let limits = LogLimits { file_bytes, files };
    let sound = directory.is_absolute() && args.next().is_none();
    sound.then(|| (Directory::new(directory), limits))
}

/// Daemon: tells the shim to start.
pub fn send_start(
    socket: &UnixStream,
    netns: Option<BorrowedFd<'_>>,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut bits = 0;
    let mut files = Vec::new();
    for (bit, file) in [(HAS_NETNS, netns), (HAS_CGROUP, cgroup)] {
        if let Some(file) = file {
            bits |= bit;
            files.push(file);
        }
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        let pushed = ancillary.push(SendAncillaryMessage::ScmRights(&files));
        assert!(pushed, "there is room for two files");
    }
    sendmsg(socket, &[IoSlice::new(&[bits])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Shim: waits for the start; `None` where the daemon is gone.
pub fn receive_start(socket: &UnixStream) -> io::Result<Option<Files>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bits = [0];
    let mut slices = [IoSliceMut::new(&mut bits)];
    let received = recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let mut files = files.next().into_iter().flatten();
    let mut take = |bit| if bits[0] & bit == bit { files.next() } else { None };
    Ok(Some(Files { netns: take(HAS_NETNS), cgroup: take(HAS_CGROUP) }))
}

/// Shim: answers. A daemon that is gone finds the container again by its files.
pub fn send_answer(mut socket: &UnixStream, answer: &Answer) {
    let bytes = serde_json::to_vec(answer).expect("an answer is plain data");
    let _ = io::Write::write_all(&mut socket, &bytes);
}

/// Daemon: the answer; `None` where the shim ended without one.
pub fn receive_answer(socket: &UnixStream) -> io::Result<Option<Answer>> {
    let mut bytes = Vec::new();
    socket.take(ANSWER_LIMIT_BYTES).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&bytes)?))
}
