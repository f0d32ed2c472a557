//! Which device nodes a container may open: the harmless ones.
//!
//! A container may make device nodes (`CAP_MKNOD` is in the default set, as in Docker), so without
//! this filter its root could read the host's disks. Version 1 has a controller for it, version 2
//! a program that the kernel asks at each opening.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::{Cgroup, CgroupError, Controller, Layout, write_file};

/// Character devices that may be opened: null, zero, full, random, urandom, tty, ptmx.
const OPEN: [(i32, i32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
/// Major number of pseudo terminals; all minors may be opened.
const PSEUDO_TERMINALS: i32 = 136;

/// The filter in the form that this host needs.
#[derive(Debug)]
pub enum DeviceProgram {
    /// Rules in the files of the `devices` controller.
    Legacy,
    /// A loaded program.
    Unified(OwnedFd),
}

impl DeviceProgram {
    pub fn prepare(layout: &Layout) -> io::Result<Self> {
        if layout.has(Controller::Devices) { Ok(Self::Legacy) } else { Self::load() }
    }

    /// Restricts the devices of a new cgroup.
    pub fn restrict(&self, cgroup: &Cgroup) -> Result<(), CgroupError> {
        match (self, cgroup.legacy_directory(Controller::Devices), &cgroup.unified) {
            (Self::Legacy, Some(path), _) => restrict_legacy(path),
            (Self::Unified(program), _, Some(path)) => {
                attach(program, path).map_err(|e| CgroupError::new("attach the device filter to", path, e))
            }
            (Self::Legacy, None, _) | (Self::Unified(_), _, None) => {
                unreachable!("the form was chosen for this host")
            }
        }
    }

    fn load() -> io::Result<Self> {
        let program = program();
        let attributes = LoadAttributes {
            program_type: PROGRAM_CGROUP_DEVICE,
            instruction_count: u32::try_from(program.len()).expect("a short program"),
            instructions: program.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            ..LoadAttributes::default()
        };
        let program = bpf(COMMAND_LOAD, &attributes)?;
        // SAFETY: the kernel has just given this number to us.
        Ok(Self::Unified(unsafe { OwnedFd::from_raw_fd(program) }))
    }
}

fn restrict_legacy(path: &Path) -> Result<(), CgroupError> {
    write_file(&path.join("devices.deny"), "a")?;
    let allow = path.join("devices.allow");
    // Any node may be made; opening is what matters.
    write_file(&allow, "c *:* m")?;
    write_file(&allow, "b *:* m")?;
    for (major, minor) in OPEN {
        write_file(&allow, &format!("c {major}:{minor} rwm"))?;
    }
    write_file(&allow, &format!("c {PSEUDO_TERMINALS}:* rwm"))
}

fn attach(program: &OwnedFd, path: &Path) -> io::Result<()> {
    let directory = File::open(path)?;
    let attributes = AttachAttributes {
        target: directory.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    bpf(COMMAND_ATTACH, &attributes).map(drop)
}

// Numbers of `linux/bpf.h`.
const COMMAND_LOAD: libc::c_int = 5;
const COMMAND_ATTACH: libc::c_int = 8;
const PROGRAM_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const TYPE_CHARACTER: i32 = 2;
const ACCESS_MAKE: i32 = 1;

/// Arguments of loading, of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// Arguments of attaching, of `union bpf_attr`.
#[repr(C)]
struct AttachAttributes {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

/// Verdict 1 to allow, 0 to refuse, from `struct bpf_cgroup_dev_ctx`: access in the upper half of
/// the first word and type in its lower half, then major and minor number.
fn program() -> Vec<Instruction> {
    const LOAD: u8 = 0x61;
    const MOVE: u8 = 0xbf;
    const SHIFT_RIGHT: u8 = 0x77;
    const AND: u8 = 0x57;
    const SET: u8 = 0xb7;
    const JUMP_IF: u8 = 0x15;
    const JUMP_IF_NOT: u8 = 0x55;
    const END: u8 = 0x95;
    let allow = [instruction(SET, 0, 0, 1), instruction(END, 0, 0, 0)];
    let refuse = [instruction(SET, 0, 0, 0), instruction(END, 0, 0, 0)];
    let mut program = vec![
        // Registers: 2 type, 3 access, 4 major, 5 minor.
        instruction(LOAD, 0x12, 0, 0),
        instruction(MOVE, 0x23, 0, 0),
        instruction(SHIFT_RIGHT, 3, 0, 16),
        instruction(AND, 2, 0, 0xffff),
        instruction(LOAD, 0x14, 4, 0),
        instruction(LOAD, 0x15, 8, 0),
        instruction(JUMP_IF_NOT, 3, 2, ACCESS_MAKE),
    ];
    program.extend(allow);
    program.push(instruction(JUMP_IF, 2, 2, TYPE_CHARACTER));
    program.extend(refuse);
    for (major, minor) in OPEN {
        program.push(instruction(JUMP_IF_NOT, 4, 3, major));
        program.push(instruction(JUMP_IF_NOT, 5, 2, minor));
        program.extend(allow);
    }
    program.push(instruction(JUMP_IF_NOT, 4, 2, PSEUDO_TERMINALS));
    program.extend(allow);
    program.extend(refuse);
    program
}

#[cfg(test)]
mod tests;

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads as many bytes as the structure has; the pointers in it outlive the
    // call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *const T, std::mem::size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(result).expect("an open file's number"))
}
