//! The program is run by a small interpreter of classic BPF and compared with the lists.

use libc::{c_long, sock_filter};

use super::assemble::{Namespaces, program};
use super::syscalls::{ALWAYS, NEWEST_KNOWN};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | u32::try_from(number).unwrap()
}

#[cfg(target_arch = "x86_64")]
const HERE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const HERE: u32 = 0xc000_00b7;

fn run(program: &[sock_filter], number: u32, architecture: u32, argument: u32) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let step = program[at];
        at += 1;
        match u32::from(step.code) {
            0x20 => {
                accumulator = match step.k {
                    0 => number,
                    4 => architecture,
                    16 => argument,
                    other => panic!("load from {other}"),
                };
            }
            0x54 => accumulator &= step.k,
            0x05 => at += step.k as usize,
            0x15 | 0x35 => {
                let holds = match step.code {
                    0x15 => accumulator == step.k,
                    _ => accumulator >= step.k,
                };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
            0x06 => return step.k,
            other => panic!("operation {other:#x}"),
        }
    }
}

fn verdict(number: c_long, argument: u32) -> u32 {
    let program = program(ALWAYS, Namespaces::Refused);
    run(&program, u32::try_from(number).unwrap(), HERE, argument)
}

#[test]
fn each_number_has_the_verdict_of_the_list() {
    let program = program(ALWAYS, Namespaces::Refused);
    let special = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_socket, libc::SYS_personality];
    for number in 0..=NEWEST_KNOWN {
        if special.contains(&c_long::from(number)) {
            continue;
        }
        let expect = match ALWAYS.contains(&c_long::from(number)) {
            true => ALLOW,
            false => errno(libc::EPERM),
        };
        assert_eq!(run(&program, number, HERE, 0), expect, "call {number}");
    }
    assert_eq!(run(&program, NEWEST_KNOWN + 1, HERE, 0), errno(libc::ENOSYS));
    assert!(program.len() < 512, "{}", program.len());
}

#[test]
fn what_reaches_into_the_host_is_refused() {
    let refused = [
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_perf_event_open,
        libc::SYS_kexec_load,
        libc::SYS_open_by_handle_at,
        libc::SYS_init_module,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_pivot_root,
        libc::SYS_fsopen,
        libc::SYS_move_mount,
        libc::SYS_settimeofday,
    ];
    for number in refused {
        assert_eq!(verdict(number, 0), errno(libc::EPERM), "call {number}");
    }
}

#[test]
fn arguments_decide_where_they_matter() {
    let flag = |flag: i32| u32::try_from(flag & 0x7fff_ffff).unwrap();
    assert_eq!(verdict(libc::SYS_clone, flag(libc::CLONE_VM | libc::CLONE_THREAD)), ALLOW);
    for namespace in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWCGROUP] {
        assert_eq!(verdict(libc::SYS_clone, flag(namespace)), errno(libc::EPERM));
    }
    assert_eq!(verdict(libc::SYS_clone3, 0), errno(libc::ENOSYS));
    assert_eq!(verdict(libc::SYS_socket, flag(libc::AF_INET)), ALLOW);
    assert_eq!(verdict(libc::SYS_socket, flag(libc::AF_VSOCK)), errno(libc::EAFNOSUPPORT));
    assert_eq!(verdict(libc::SYS_socket, flag(libc::AF_ALG)), errno(libc::EAFNOSUPPORT));
    assert_eq!(verdict(libc::SYS_personality, 0), ALLOW);
    assert_eq!(verdict(libc::SYS_personality, 0x4_0000), errno(libc::EPERM));
}

#[test]
fn other_machines_are_refused() {
    let program = program(ALWAYS, Namespaces::Refused);
    assert_eq!(run(&program, 0, 0x4000_0003, 0), errno(libc::EPERM));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(run(&program, 0x4000_0000, HERE, 0), errno(libc::EPERM));
}
