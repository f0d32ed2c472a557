//! System calls that no safe crate offers in the form needed here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::signal::Signal;

/// `pidfd_send_signal`, for real-time signals too.
pub fn send_signal(process: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: plain integers, and a null pointer where the kernel fills in the default.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal.number(),
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result).map(drop)
}

/// Makes a mount refuse writes.
pub fn make_read_only(mount: &OwnedFd) -> io::Result<()> {
    // SAFETY: `mount_attr` is plain data for which all zeroes is valid.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_RDONLY;
    // SAFETY: the path is an empty string, as the flag asks for, and the structure has the size
    // that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// Which side of [`fork_into`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Child,
    Parent { child: i32 },
}

/// `CLONE_INTO_CGROUP`; the C library's crate has it in too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks a child that is born in a version 2 cgroup, which costs no wait for a grace period as
/// moving it there would. The caller must have one thread only.
pub fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    // SAFETY: `clone_args` is plain data for which all zeroes is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags = CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).expect("an open file's number");
    }
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of everything, and with
    // one thread no lock can be held by another.
    let result = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, std::mem::size_of::<libc::clone_args>())
    };
    match check(result)? {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent { child: i32::try_from(child).expect("a process number") }),
    }
}

/// Ends the process without running anything more of it.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` never returns and touches nothing.
    unsafe { libc::_exit(code) }
}

/// Sets every signal to its default and blocks none, as a new program expects.
pub fn reset_signals() -> io::Result<()> {
    /// The kernel's `struct sigaction`, all zeroes: the default, no flags.
    const DEFAULT: [u64; 4] = [0; 4];
    /// Bytes in the kernel's set of signals.
    const SET_BYTES: usize = 8;
    for number in 1..=64 {
        // SAFETY: the kernel reads a structure that is no larger than this. Not through the C
        // library, which keeps two signals to itself. It fails for SIGKILL and SIGSTOP, which
        // have no other disposition.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u8>(),
                SET_BYTES,
            )
        };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Closes every file but the standard three, and those are let go to `/dev/null`: a process that
/// stays must not keep a pipe open that others wait on. `closed` is one of them, named so that
/// the caller says which file it is about.
pub fn close_all_but_standard(closed: RawFd) {
    debug_assert!(closed > 2, "a standard file is not closed");
    // SAFETY: the caller is a process of its own that uses no file after this.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for standard in 0..=2 {
            if null >= 0 {
                libc::dup2(null, standard);
            }
        }
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
    }
}

/// Gives memory that the allocator holds free back to the kernel.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that could be wrong; thread-safe.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
