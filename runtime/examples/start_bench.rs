//! Measures how long a container takes from the call to its end: `start_bench [COUNT] [LAYER]`.
//!
//! LAYER is an unpacked root filesystem with `/bin/true`; without it one is made of the host's
//! static busybox. `runc run` on the same files is measured beside it where it is installed, and
//! the private memory of a shim is printed.

use std::error::Error;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use swarm_runtime::{Container, ContainerSpec, Runtime, RuntimeConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|word| word == swarm_runtime::shim::ARGUMENT) {
        swarm_runtime::shim::main(args.skip(1));
    }
    let count = args.next().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(50);
    let home = tempfile::tempdir()?;
    let layer = match args.next() {
        Some(layer) => PathBuf::from(layer),
        None => busybox_layer(home.path())?,
    };
    let config = RuntimeConfig::new(home.path().join("run"), "swarm-start-bench".to_owned());
    let runtime = Runtime::open(config)?;
    let (mut started, mut ended, mut runc) = (Vec::new(), Vec::new(), Vec::new());
    prepare_runc(home.path(), &layer)?;
    for number in 0..count {
        let begin = Instant::now();
        let container = runtime.start(spec(&layer, &format!("bench-{number}"), "true"))?;
        started.push(begin.elapsed());
        wait(&container)?;
        ended.push(begin.elapsed());
        runtime.remove(container.id())?;
        if let Some(took) = run_runc(home.path(), number) {
            runc.push(took);
        }
    }
    print_times("start", &mut started);
    print_times("start to exit", &mut ended);
    print_times("runc run", &mut runc);
    print_shim_memory(&runtime, &layer)?;
    runtime.remove_cgroup_parent();
    Ok(())
}

fn spec(layer: &Path, id: &str, command: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::new(id, [command]);
    spec.layers = vec![layer.to_owned()];
    spec
}

fn wait(container: &Container) -> Result<(), Box<dyn Error>> {
    let shim = container.shim_pidfd();
    poll(&mut [PollFd::new(&shim.as_fd(), PollFlags::IN)], None)?;
    container.exit_status()?.ok_or("a shim that ended has a status")?;
    Ok(())
}

fn busybox_layer(home: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let layer = home.join("layer");
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(layer.join(directory))?;
    }
    fs::copy("/bin/busybox", layer.join("bin/busybox"))
        .map_err(|error| format!("/bin/busybox (apt-get install busybox-static): {error}"))?;
    for name in ["true", "sleep"] {
        symlink("busybox", layer.join("bin").join(name))?;
    }
    Ok(layer)
}

fn prepare_runc(home: &Path, layer: &Path) -> Result<(), Box<dyn Error>> {
    let bundle = home.join("bundle");
    fs::create_dir(&bundle)?;
    let made = Command::new("runc").arg("spec").current_dir(&bundle).status();
    if made.is_ok_and(|status| status.success()) {
        let path = bundle.join("config.json");
        let text = fs::read_to_string(&path)?
            .replace("\"terminal\": true", "\"terminal\": false")
            .replace("\"sh\"", "\"true\"")
            .replace("\"rootfs\"", &format!("{:?}", layer.display()));
        fs::write(path, text)?;
    }
    Ok(())
}

fn run_runc(home: &Path, number: u32) -> Option<Duration> {
    let begin = Instant::now();
    let status = Command::new("runc")
        .args(["run", "--bundle"])
        .arg(home.join("bundle"))
        .arg(format!("swarm-start-bench-{number}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    status.success().then(|| begin.elapsed())
}

fn print_times(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let Some(last) = times.last() else { return };
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let median = millis(times[times.len() / 2]);
    println!("{what:14} median {median:6.1} ms, longest {:6.1} ms of {}", millis(*last), times.len());
}

fn print_shim_memory(runtime: &Runtime, layer: &Path) -> Result<(), Box<dyn Error>> {
    let mut sleeper = spec(layer, "memory", "sleep");
    sleeper.args.push("60".to_owned());
    let container = runtime.start(sleeper)?;
    let stat = fs::read_to_string(format!("/proc/{}/status", container.init_pid()))?;
    let parent = stat.lines().find_map(|line| line.strip_prefix("PPid:")).ok_or("no parent")?;
    let memory = fs::read_to_string(format!("/proc/{}/smaps_rollup", parent.trim()))?;
    let kib: u64 = memory
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    println!("shim           {kib} KiB private");
    runtime.remove(container.id())?;
    Ok(())
}
