//! Deaths of the daemon and of the shim.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use swarm_runtime::{FoundState, Outcome, Runtime};

use crate::support::{Host, parent, processes_of, wait};

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Waits until a process that is not a child has gone.
fn wait_gone(pid: i32) {
    let Ok(pidfd) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) else { return };
    let limit = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "{pid} lives on");
}

#[test]
fn a_container_outlives_the_process_that_started_it() {
    let host = Host::new();
    // A daemon that starts a container and is killed.
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let spec = host.shell("orphan", script);
    let daemon = fork_child(|| {
        let runtime = Runtime::open(host.config()).unwrap();
        runtime.start(spec).unwrap();
        kill(std::process::id().try_into().unwrap());
    });
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(daemon), None).unwrap();

    let mut found = host.runtime.adopt().unwrap();
    assert_eq!(found.len(), 1);
    let found = found.remove(0);
    let FoundState::Running(container) = found.state else { panic!("{found:?}") };
    assert_eq!(container.id(), "orphan");
    host.wait_for_line("orphan", "ready");
    assert!(container.stats().unwrap().pids >= 1);
    container.signal(swarm_runtime::Signal::TERM).unwrap();
    assert_eq!(host.finish(&container).exit.code, 5);
    let found = host.runtime.adopt().unwrap().remove(0);
    assert!(matches!(found.state, FoundState::Exited(exit) if exit.code == 5));
    host.runtime.remove("orphan").unwrap();
}

/// Forks a process that shares nothing with the test's threads and runs `body`.
fn fork_child(body: impl FnOnce()) -> i32 {
    // SAFETY: the child uses only what it has, and the allocator, which the C library keeps usable
    // over a fork.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => child.as_raw(),
        nix::unistd::ForkResult::Child => {
            body();
            std::process::exit(0)
        }
    }
}

#[test]
fn a_killed_shim_leaves_no_process() {
    let host = Host::new();
    let container = host.runtime.start(host.shell("lost", "sleep 600 & sleep 600")).unwrap();
    let init = container.init_pid();
    kill(parent(init));
    assert_eq!(wait(&container), Outcome::Lost);
    wait_gone(init);
    let found = host.runtime.adopt().unwrap().remove(0);
    assert!(matches!(found.state, FoundState::Lost), "{found:?}");
    host.runtime.remove("lost").unwrap();
}

#[test]
fn a_container_that_changed_its_user_does_not_outlive_its_shim_either() {
    // The kernel unties a process from its parent's death when it changes its user.
    let host = Host::new();
    let mut spec = host.shell("setuid", "echo ready; exec sleep 600");
    spec.args =
        ["su", "-s", "/bin/sh", "web", "-c", "echo ready; exec sleep 600"].map(str::to_owned).to_vec();
    let container = host.runtime.start(spec).unwrap();
    host.wait_for_line("setuid", "ready");
    let init = container.init_pid();
    kill(parent(init));
    assert_eq!(wait(&container), Outcome::Lost);
    wait_gone(init);
    host.runtime.remove("setuid").unwrap();
}

#[test]
fn a_directory_without_records_is_lost_and_can_be_removed() {
    let host = Host::new();
    let directory = host.home.path().join("run/half");
    fs::create_dir(&directory).unwrap();
    let found = host.runtime.adopt().unwrap().remove(0);
    assert!(matches!(found.state, FoundState::Lost));
    for name in ["state.json", "container.json"] {
        fs::write(directory.join(name), "{ torn").unwrap();
    }
    let found = host.runtime.adopt().unwrap().remove(0);
    assert!(matches!(found.state, FoundState::Lost));
    host.runtime.remove("half").unwrap();
    assert!(!directory.exists());
}

#[test]
fn a_reused_process_number_is_not_taken_for_the_container() {
    let host = Host::new();
    let container = host.runtime.start(host.shell("reused", "sleep 600")).unwrap();
    let path = host.home.path().join("run/reused/state.json");
    let state = fs::read_to_string(&path).unwrap();
    kill(parent(container.init_pid()));
    assert_eq!(wait(&container), Outcome::Lost);
    // The numbers of this process, with the old start times.
    let own = std::process::id();
    let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
    state["shim"]["pid"] = own.into();
    state["init"]["pid"] = own.into();
    fs::write(&path, state.to_string()).unwrap();
    assert!(matches!(host.runtime.adopt().unwrap().remove(0).state, FoundState::Lost));
    host.runtime.remove("reused").unwrap();
}

#[test]
fn a_start_that_is_cut_off_leaves_nothing() {
    let host = Host::new();
    for step in 0..24_u32 {
        let spec = host.shell(&format!("cut-{step}"), "sleep 600");
        let config = host.config();
        let daemon = fork_child(move || {
            let runtime = Runtime::open(config).unwrap();
            let _ = runtime.start(spec);
            // Until it is killed.
            std::thread::sleep(std::time::Duration::from_secs(60));
        });
        // The faults are to be spread over the start, which takes some tens of milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(u64::from(step) * 3));
        kill(daemon);
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(daemon), None).unwrap();
        for container in host.runtime.adopt().unwrap() {
            host.runtime.remove(&container.id).unwrap();
        }
    }
    // A shim that had no container yet ends by itself, which takes a moment.
    for pid in processes_of(host.home.path().to_str().unwrap()) {
        wait_gone(pid);
    }
}

#[test]
fn a_shim_killed_at_any_moment_of_the_start_leaves_nothing() {
    let host = Host::new();
    let home = host.home.path().to_str().unwrap().to_owned();
    for step in 0..12_u64 {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let id = format!("shim-{step}");
                if let Ok(container) = host.runtime.start(host.shell(&id, "sleep 600")) {
                    while container.exit_status().unwrap().is_none() {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    host.runtime.remove(&id).unwrap();
                }
                done.store(true, Ordering::Release);
            });
            std::thread::sleep(std::time::Duration::from_millis(step * 4));
            while !done.load(Ordering::Acquire) {
                for pid in processes_of(&home) {
                    // It may have ended meanwhile.
                    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
                }
            }
        });
    }
}

#[test]
fn many_containers_start_side_by_side() {
    let host = Host::new();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let host = &host;
            scope.spawn(move || {
                for round in 0..5 {
                    let id = format!("c-{worker}-{round}");
                    let run = host.run(host.shell(&id, "echo $HOSTNAME; hostname"));
                    assert!(run.stdout.contains(&id), "{run:?}");
                }
            });
        }
    });
}

#[test]
fn a_shim_without_a_daemon_ends() {
    let host = Host::new();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_swarm-shim"))
        .args(["shim", host.home.path().join("nowhere").to_str().unwrap(), "1000", "2"])
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    assert!(!child.wait().unwrap().success());
    let by_hand = std::process::Command::new(env!("CARGO_BIN_EXE_swarm-shim")).status().unwrap();
    assert_eq!(by_hand.code(), Some(2));
}
