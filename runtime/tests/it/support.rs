//! A runtime of one's own, containers of busybox, and a look at what is left behind.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use swarm_runtime::logs::{ReadOptions, Stream};
use swarm_runtime::{Container, ContainerSpec, Exit, Outcome, Runtime, RuntimeConfig, StartError};
use tempfile::TempDir;

/// How long anything may take that a test waits for.
const LIMIT: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A runtime in a directory of its own, and an image layer.
pub struct Host {
    pub home: TempDir,
    pub runtime: Runtime,
    pub cgroup_parent: String,
}

/// What a container wrote and how it ended.
#[derive(Debug)]
pub struct Run {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

impl Host {
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests start real containers: run them as root");
        let home = tempfile::tempdir().unwrap();
        make_layer(&home.path().join("layer"));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup_parent = format!("swarm-it-{}-{number}", std::process::id());
        let runtime = Runtime::open(config(home.path(), &cgroup_parent)).unwrap();
        Self { home, runtime, cgroup_parent }
    }

    pub fn layer(&self) -> PathBuf {
        self.home.path().join("layer")
    }

    pub fn config(&self) -> RuntimeConfig {
        config(self.home.path(), &self.cgroup_parent)
    }

    /// A specification that runs a script in the busybox image.
    pub fn shell(&self, id: &str, script: &str) -> ContainerSpec {
        let mut spec = ContainerSpec::new(id, ["sh", "-c", script]);
        spec.layers = vec![self.layer()];
        spec
    }

    /// Runs a container to its end and removes it.
    pub fn run(&self, spec: ContainerSpec) -> Run {
        let container = self.runtime.start(spec).unwrap();
        let run = self.finish(&container);
        self.runtime.remove(container.id()).unwrap();
        run
    }

    /// What a script prints; it must succeed.
    pub fn output(&self, script: &str) -> String {
        let run = self.run(self.shell("output", script));
        assert_eq!(run.exit.code, 0, "{run:?}");
        run.stdout
    }

    pub fn finish(&self, container: &Container) -> Run {
        let Outcome::Exited(exit) = wait(container) else {
            panic!("{} is lost", container.id());
        };
        let read = |stream| self.read_log(container.id(), stream);
        Run { exit, stdout: read(Stream::Stdout), stderr: read(Stream::Stderr) }
    }

    pub fn read_log(&self, id: &str, stream: Stream) -> String {
        let mut reader = self.runtime.log_reader(id, ReadOptions::default());
        let mut text = String::new();
        loop {
            let batch = reader.read_batch().unwrap();
            if batch.is_empty() {
                return text;
            }
            for entry in batch.into_iter().filter(|entry| entry.stream == stream) {
                text.push_str(&String::from_utf8_lossy(&entry.bytes));
                if !entry.partial {
                    text.push('\n');
                }
            }
        }
    }

    /// Waits until a container has printed a line that holds `text`.
    pub fn wait_for_line(&self, id: &str, text: &str) {
        let mut reader = self.runtime.log_reader(id, ReadOptions::default());
        let begin = std::time::Instant::now();
        loop {
            for entry in reader.read_batch().unwrap() {
                if String::from_utf8_lossy(&entry.bytes).contains(text) {
                    return;
                }
            }
            assert!(begin.elapsed().as_secs() < 60, "{id} never printed {text:?}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Starts what must fail; the error's text. Nothing may be left of it.
    pub fn refused(&self, spec: ContainerSpec) -> String {
        let id = spec.id.clone();
        let error = match self.runtime.start(spec) {
            Ok(container) => panic!("{id} started: {:?}", self.finish(&container)),
            Err(error) => error,
        };
        assert!(!self.home.path().join("run").join(&id).exists(), "{id} left its directory");
        assert!(!matches!(error, StartError::ShimDied { .. }), "{error}");
        error.to_string()
    }

    /// The cgroup parent, wherever it may be.
    fn hierarchies(&self) -> impl Iterator<Item = PathBuf> {
        let root = PathBuf::from("/sys/fs/cgroup");
        let mounts = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
        let all = std::iter::once(root).chain(mounts.filter(|path| path.is_dir()));
        all.map(|mount| mount.join(&self.cgroup_parent))
    }

    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for parent in self.hierarchies() {
            let Ok(entries) = fs::read_dir(parent) else { continue };
            found.extend(entries.map(|e| e.unwrap().path()).filter(|path| path.is_dir()));
        }
        found
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let found = self.runtime.adopt().unwrap();
        for container in &found {
            self.runtime.remove(&container.id).unwrap();
        }
        if std::thread::panicking() {
            self.runtime.remove_cgroup_parent();
            return;
        }
        let ids: Vec<_> = found.iter().map(|container| &container.id).collect();
        assert!(ids.is_empty(), "the test left {ids:?}");
        assert!(self.cgroups().is_empty(), "cgroups left: {:?}", self.cgroups());
        let home = self.home.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(home), "mounts left below {home}");
        assert_eq!(processes_of(home), Vec::<i32>::new(), "processes left");
        self.runtime.remove_cgroup_parent();
        let parents = self.hierarchies().filter(|path| path.exists()).collect::<Vec<_>>();
        assert!(parents.is_empty(), "{parents:?} left");
    }
}

fn config(home: &Path, cgroup_parent: &str) -> RuntimeConfig {
    let mut config = RuntimeConfig::new(home.join("run"), cgroup_parent.to_owned());
    config.shim_executable = PathBuf::from(env!("CARGO_BIN_EXE_swarm-shim"));
    config
}

/// Waits for the end of a container.
pub fn wait(container: &Container) -> Outcome {
    let shim = container.shim_pidfd();
    let ended = poll(&mut [PollFd::new(&shim.as_fd(), PollFlags::IN)], Some(&LIMIT)).unwrap();
    assert_eq!(ended, 1, "{} does not end", container.id());
    container.exit_status().unwrap().unwrap()
}

/// Processes that have `home` among their arguments: shims.
pub fn processes_of(home: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    let of_home = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(home)
    };
    processes.filter(of_home).collect()
}

/// The parent of a process.
pub fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// A minimal image: busybox under the names that the tests use, and users.
pub fn make_layer(layer: &Path) {
    for directory in ["bin", "etc", "tmp", "root"] {
        fs::create_dir_all(layer.join(directory)).unwrap();
    }
    let busybox = layer.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox)
        .unwrap_or_else(|error| panic!("/bin/busybox is needed: apt-get install busybox-static ({error})"));
    let applets = [
        "sh", "cat", "ls", "id", "env", "sleep", "head", "seq", "mknod", "mount", "unshare", "dd",
        "hostname", "pwd", "touch", "grep", "tail", "wc", "true", "readlink", "kill", "ps", "nc", "stat",
        "su", "mkdir", "ln", "rm", "tr", "yes",
    ];
    for applet in applets {
        symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    fs::write(
        layer.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:Web:/var/www:/bin/false\n",
    )
    .unwrap();
    fs::write(layer.join("etc/group"), "root:x:0:\nadm:x:4:web\nwww:x:44:\n").unwrap();
}
