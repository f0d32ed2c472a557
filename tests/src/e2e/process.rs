//! The processes that a test starts, and the programs that it starts them from.

use std::path::PathBuf;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

/// A program built beside the tests.
///
/// # Panics
/// It was not built.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its program");
    let directory = own.ancestors().find(|path| path.join(name).is_file()).unwrap_or_else(|| {
        panic!(
            "{name} is not built beside {}: run tools/test, or first `cargo build --workspace --bins` and \
             `cargo rustc -p swarm-demo -- -C target-feature=+crt-static`",
            own.display()
        )
    });
    directory.join(name)
}

/// # Panics
/// The test does not run as root.
pub fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test runs real containers in network namespaces and needs root: sudo --preserve-env=PATH tools/test"
    );
}

/// Sends a signal to a child that was not waited for yet.
pub fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills a process by number; it may be gone already.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
