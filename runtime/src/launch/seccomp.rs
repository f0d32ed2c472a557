//! The system calls that a container may make: an allow-list in the spirit of Docker's default
//! profile, as a program for the kernel's filter.
//!
//! Three verdicts: allowed, `EPERM` for what is known and refused, `ENOSYS` for `clone3` (whose
//! flags a filter cannot see, so that C libraries fall back to `clone`) and for calls newer than
//! this list (so that programs fall back to older ones). Allowed numbers are looked up by binary
//! search over their ranges: the program stays short, and the kernel, which runs it once for each
//! call to learn which need no run at all, installs it quickly.

mod assemble;
mod syscalls;

use std::io;

use libc::sock_filter;
use oci_spec::runtime::{Capability, Spec};

/// A finished program.
#[derive(Debug, Clone)]
pub struct Program(Vec<sock_filter>);

/// The program for a container with the capabilities of this specification: a call that only
/// makes sense with a capability is allowed with it.
pub fn program(spec: &Spec) -> Program {
    let held = spec
        .process()
        .as_ref()
        .and_then(|process| process.capabilities().as_ref()?.effective().clone())
        .unwrap_or_default();
    let has = |capability: Capability| held.contains(&capability);
    let mut allowed: Vec<libc::c_long> = syscalls::ALWAYS.to_vec();
    for (capability, calls) in syscalls::WITH_CAPABILITY {
        if has(*capability) {
            allowed.extend_from_slice(calls);
        }
    }
    let namespaces = if has(Capability::SysAdmin) {
        allowed.extend_from_slice(&[libc::SYS_clone, libc::SYS_clone3]);
        assemble::Namespaces::Allowed
    } else {
        assemble::Namespaces::Refused
    };
    Program(assemble::program(&allowed, namespaces))
}

impl Program {
    /// Installs it for this process and all that it becomes. Needs `no_new_privs`.
    pub fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).expect("far below the kernel's limit of 4,096"),
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the program, which outlives the call and is not written to.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests;
