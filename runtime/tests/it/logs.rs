//! Output of real containers.

use swarm_runtime::logs::{ENTRY_LIMIT_BYTES, ReadOptions, Stream};
use swarm_runtime::{LogLimits, Runtime};

use crate::support::Host;

#[test]
fn long_lines_are_split_and_nothing_is_lost() {
    let host = Host::new();
    let script = "head -c 50000 /dev/zero | tr '\\0' x; echo; echo -n no newline";
    let container = host.runtime.start(host.shell("long", script)).unwrap();
    let run = host.finish(&container);
    let lines: Vec<usize> = run.stdout.lines().map(str::len).collect();
    assert_eq!(lines, [50_000, "no newline".len()]);
    let mut reader = host.runtime.log_reader("long", ReadOptions::default());
    let first = reader.read_batch().unwrap().remove(0);
    assert!(first.partial && first.bytes.len() == ENTRY_LIMIT_BYTES);
    host.runtime.remove("long").unwrap();
}

#[test]
fn old_output_is_dropped() {
    let host = Host::new();
    let mut config = host.config();
    config.log_limits = LogLimits { file_bytes: 20_000, files: 3 };
    let runtime = Runtime::open(config).unwrap();
    let container = runtime.start(host.shell("rotate", "seq 1 20000")).unwrap();
    let run = host.finish(&container);
    assert!(run.stdout.ends_with("\n19999\n20000\n"), "{}", run.stdout.len());
    let files = std::fs::read_dir(host.home.path().join("run/rotate/logs")).unwrap();
    let sizes: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().sum::<u64>() < 3 * 2_000_000, "{sizes:?}");
    runtime.remove("rotate").unwrap();
}

#[test]
fn a_follower_sees_output_as_it_comes() {
    let host = Host::new();
    let script = "echo first; read line < /fifo; echo $line; echo last >&2";
    let fifo = host.layer().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let container = host.runtime.start(host.shell("follow", script)).unwrap();
    host.wait_for_line("follow", "first");
    let root = format!("/proc/{}/root/fifo", container.init_pid());
    std::fs::write(root, "second\n").unwrap();
    host.wait_for_line("follow", "second");
    let run = host.finish(&container);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("first\nsecond\n", "last\n"));
    let options = ReadOptions { tail: Some(1), since: None };
    let tail = host.runtime.log_reader("follow", options).read_batch().unwrap();
    assert_eq!((tail.len(), tail[0].stream), (1, Stream::Stderr));
    host.runtime.remove("follow").unwrap();
}

#[test]
fn a_flood_does_not_stop_the_container() {
    let host = Host::new();
    let run = host.run(host.shell("flood", "yes | head -c 2000000; exit 4"));
    assert_eq!(run.exit.code, 4);
}
