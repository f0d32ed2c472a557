//! Classic BPF for the filter, from the allowed numbers.

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use libc::{c_long, sock_filter};

/// Offsets in `struct seccomp_data`; the lower half of an argument comes first on the
/// little-endian machines that this is for.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT_0: u32 = 16;

#[cfg(target_arch = "x86_64")]
const THIS_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const THIS_ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers of the x32 machine begin here.
#[cfg(target_arch = "x86_64")]
const FOREIGN_NUMBERS: u32 = 0x4000_0000;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
/// What sockets of a refused family answer.
const EAFNOSUPPORT: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;

/// Flags of `clone` that make namespaces: mount, cgroup, UTS, IPC, user, PID, network. (Time has
/// the bit of an exit signal and cannot be made by `clone`.)
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// `personality` values that change nothing of importance: Linux, 32 bit, with UNAME26, query.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Socket families with which containers reach the host's kernel or hypervisor.
const REFUSED_FAMILIES: [u32; 2] = [libc::AF_ALG as u32, libc::AF_VSOCK as u32];

/// Whether new namespaces may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    Allowed,
    Refused,
}

/// Numbers from `first` on, up to the next segment, have one verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    first: u32,
    verdict: u32,
}

pub fn program(allowed: &[c_long], namespaces: Namespaces) -> Vec<sock_filter> {
    let mut program =
        vec![load(ARCHITECTURE), jump(BPF_JEQ, THIS_ARCHITECTURE, 1, 0), verdict(EPERM), load(NUMBER)];
    if namespaces == Namespaces::Refused {
        let refused = [
            load(ARGUMENT_0),
            statement(BPF_ALU | BPF_AND | BPF_K, NAMESPACE_FLAGS),
            jump(BPF_JEQ, 0, 0, 1),
            verdict(ALLOW),
            verdict(EPERM),
        ];
        when(&mut program, libc::SYS_clone, &refused);
        when(&mut program, libc::SYS_clone3, &[verdict(ENOSYS)]);
    }
    let among = |values: &[u32], found: u32, other: u32| {
        let mut block = vec![load(ARGUMENT_0)];
        for value in values {
            block.extend([jump(BPF_JEQ, *value, 0, 1), verdict(found)]);
        }
        block.push(verdict(other));
        block
    };
    let socket = among(&REFUSED_FAMILIES, EAFNOSUPPORT, ALLOW);
    when(&mut program, libc::SYS_socket, &socket);
    when(&mut program, libc::SYS_personality, &among(&PERSONALITIES, ALLOW, EPERM));
    search(&mut program, &segments(allowed));
    program
}

/// Runs `block`, which ends in verdicts, for one number.
fn when(program: &mut Vec<sock_filter>, number: c_long, block: &[sock_filter]) {
    let length = u8::try_from(block.len()).expect("blocks are short");
    program.push(jump(BPF_JEQ, to_u32(number), 0, length));
    program.extend_from_slice(block);
}

/// The whole range of numbers, cut where the verdict changes.
fn segments(allowed: &[c_long]) -> Vec<Segment> {
    let mut allowed: Vec<u32> = allowed.iter().copied().map(to_u32).collect();
    allowed.sort_unstable();
    allowed.dedup();
    let newest = super::syscalls::NEWEST_KNOWN.max(allowed.last().copied().unwrap_or(0));
    let mut segments = vec![Segment { first: 0, verdict: EPERM }];
    let mut set = |first: u32, verdict: u32| {
        let last = segments.last_mut().expect("never empty");
        if last.first == first {
            last.verdict = verdict;
        } else if last.verdict != verdict {
            segments.push(Segment { first, verdict });
        }
    };
    for (index, number) in allowed.iter().enumerate() {
        set(*number, ALLOW);
        if allowed.get(index + 1) != Some(&(number + 1)) {
            set(number + 1, EPERM);
        }
    }
    set(newest + 1, ENOSYS);
    #[cfg(target_arch = "x86_64")]
    set(FOREIGN_NUMBERS, EPERM);
    segments
}

/// A tree of comparisons: right half behind a jump, left half next.
fn search(program: &mut Vec<sock_filter>, segments: &[Segment]) {
    if let [only] = segments {
        program.push(verdict(only.verdict));
        return;
    }
    let (low, high) = segments.split_at(segments.len() / 2);
    let mut left = Vec::new();
    search(&mut left, low);
    match u8::try_from(left.len()) {
        Ok(distance) => program.push(jump(BPF_JGE, high[0].first, distance, 0)),
        Err(_) => {
            // Too far for a conditional jump: over an unconditional one.
            let distance = u32::try_from(left.len()).expect("programs are short");
            program.push(jump(BPF_JGE, high[0].first, 0, 1));
            program.push(statement(BPF_JMP | libc::BPF_JA | BPF_K, distance));
        }
    }
    program.append(&mut left);
    search(program, high);
}

fn to_u32(number: c_long) -> u32 {
    u32::try_from(number).expect("system call numbers are small")
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn verdict(value: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, value)
}

fn statement(code: u32, k: u32) -> sock_filter {
    let code = u16::try_from(code).expect("an operation's code");
    sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let jump = statement(BPF_JMP | condition | BPF_K, k);
    sock_filter { jt, jf, ..jump }
}
