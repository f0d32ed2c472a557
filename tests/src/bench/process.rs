//! What processes use, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process has used and uses.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_bytes: u64,
}

impl Usage {
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        Ok(Self { cpu: cpu_time(pid)?, resident_bytes: status_bytes(pid, "VmRSS:")? })
    }

    /// CPU time since then, and the memory of now.
    pub fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), ..self }
    }
}

pub fn peak_memory_bytes(pid: u32) -> anyhow::Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// What a thread has written to files and sockets.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    pub calls: u64,
    pub bytes: u64,
}

/// Of the thread of a process with this name.
pub fn written(pid: u32, thread: &str) -> anyhow::Result<Written> {
    let threads = format!("/proc/{pid}/task");
    for entry in fs::read_dir(&threads).context(threads)? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm")).unwrap_or_default().trim() == thread {
            let io = fs::read_to_string(path.join("io"))?;
            let count = |field: &str| {
                let line = io.lines().find_map(|line| line.strip_prefix(field));
                line.context("a thread has its counts")?.trim().parse::<u64>().context("a number")
            };
            return Ok(Written { calls: count("syscw:")?, bytes: count("wchar:")? });
        }
    }
    anyhow::bail!("process {pid} has no thread {thread}")
}

/// Of the last minute: figures mean little beside other work.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().unwrap_or("unknown").to_owned()
}

fn status_bytes(pid: u32, field: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).context(path)?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.split_ascii_whitespace().next());
    let kib: u64 = value.context("a process has memory")?.parse()?;
    Ok(kib << 10)
}

/// Of all of its threads, in user and kernel mode.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    /// Fields between the command, which may hold anything, and the user time.
    const FIELDS_BETWEEN: usize = 11;
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).context(path)?;
    let (_, fields) = stat.rsplit_once(')').context("a process has a command")?;
    let times = fields.split_ascii_whitespace().skip(FIELDS_BETWEEN).take(2);
    let ticks: u64 = times.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Raises the limit of open files, a connection each, where it is lower and may be raised.
pub fn allow_open_files(count: u64) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < count) {
        let limit = Rlimit { current: Some(count), maximum: maximum.map(|maximum| maximum.max(count)) };
        setrlimit(Resource::Nofile, limit)
            .with_context(|| format!("{count} open files are needed: ulimit -n"))?;
    }
    Ok(())
}
