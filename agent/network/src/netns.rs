//! Network namespaces by file descriptor.
//!
//! A namespace lives as long as somebody holds it: a descriptor, a socket or a process. Nothing here gives it a name in
//! the file system, so nothing is left over when every holder dies.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};

/// The calling thread's namespace.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Moves the calling thread into a namespace. Threads that it starts later begin there.
pub fn enter(netns: impl AsFd) -> io::Result<()> {
    Ok(setns(netns, CloneFlags::CLONE_NEWNET)?)
}

/// Moves the calling thread into a namespace of its own.
pub fn enter_new() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNET)?)
}

/// Runs `work` in a thread inside a namespace; the caller stays where it is.
pub fn within<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    apart(|| {
        enter(netns)?;
        Ok(work())
    })
}

/// Runs `work` in a thread that may change its namespace.
pub fn apart<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
