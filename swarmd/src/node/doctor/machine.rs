//! The machine: kernel, cgroups, disk, network devices, firewalls.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Finding;

/// The controllers that limit containers.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Writes of which the disk's latency is measured.
const WRITES: usize = 16;
/// A synced write takes so long on a good disk at most; a manager's writes wait for it.
const SLOW_SYNC: Duration = Duration::from_millis(10);
/// With less room, images cannot be unpacked for long.
const LEAST_FREE_BYTES: u64 = 2 << 30;
const LEAST_FREE_PERCENT: u64 = 10;
/// The tunnel to other nodes takes 50 bytes of each packet.
const USUAL_MTU: u16 = 1450;

pub fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Finding::fine("kernel", release)
}

pub fn cgroups() -> Finding {
    const SUBJECT: &str = "cgroups";
    const ADVICE: &str =
        "boot with the kernel parameters systemd.unified_cgroup_hierarchy=1 cgroup_enable=memory";
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let (unified, legacy) = controllers(&mounts);
    let lacks = |have: &[String]| CONTROLLERS.iter().any(|wanted| !have.iter().any(|one| one == wanted));
    let text = CONTROLLERS.join(", ");
    if !lacks(&unified) {
        Finding::fine(SUBJECT, format!("version 2 with {text}"))
    } else if !lacks(&legacy) {
        Finding::fine(SUBJECT, format!("version 1 with {text}"))
    } else {
        let found = format!("not all of {text} are there; version 2: {unified:?}, version 1: {legacy:?}");
        Finding::failure(SUBJECT, found, ADVICE)
    }
}

/// Controllers of version 2 and of version 1, from the text of `mountinfo`.
fn controllers(mounts: &str) -> (Vec<String>, Vec<String>) {
    let (mut unified, mut legacy) = (Vec::new(), Vec::new());
    for line in mounts.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let mut words = filesystem.split(' ');
        let (kind, options) = (words.next(), words.nth(1).unwrap_or_default());
        let target = mount.split(' ').nth(4).unwrap_or_default();
        match kind {
            Some("cgroup2") => {
                let list =
                    fs::read_to_string(Path::new(target).join("cgroup.controllers")).unwrap_or_default();
                unified.extend(list.split_whitespace().map(str::to_owned));
            }
            Some("cgroup") => legacy.extend(options.split(',').map(str::to_owned)),
            _ => {}
        }
    }
    (unified, legacy)
}

pub fn overlay() -> Finding {
    const SUBJECT: &str = "overlayfs";
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        Finding::fine(SUBJECT, "there")
    } else {
        Finding::warning(
            SUBJECT,
            "not loaded; the first container loads it, if the kernel has it",
            "modprobe overlay",
        )
    }
}

pub fn disk(directory: &Path) -> Vec<Finding> {
    vec![space(directory), latency(directory)]
}

fn space(directory: &Path) -> Finding {
    const SUBJECT: &str = "disk space";
    let advice = || format!("make room on the file system of {}: swarmctl image ls", directory.display());
    match rustix::fs::statvfs(directory) {
        Err(error) => Finding::failure(SUBJECT, format!("{}: {error}", directory.display()), advice()),
        Ok(file_system) => {
            let free = file_system.f_bavail * file_system.f_frsize;
            let percent = file_system.f_bavail * 100 / file_system.f_blocks.max(1);
            let found = format!("{:.1} GiB free ({percent} %)", free as f64 / f64::from(1 << 30));
            if file_system.f_files > 0 && file_system.f_favail == 0 {
                Finding::failure(SUBJECT, "no inode is free", advice())
            } else if free < LEAST_FREE_BYTES || percent < LEAST_FREE_PERCENT {
                Finding::warning(SUBJECT, found, advice())
            } else {
                Finding::fine(SUBJECT, found)
            }
        }
    }
}

fn latency(directory: &Path) -> Finding {
    const SUBJECT: &str = "disk latency";
    match synced_writes(&directory.join("doctor.tmp")) {
        Err(error) => Finding::failure(
            SUBJECT,
            format!("cannot write in {}: {error}", directory.display()),
            "free or replace the disk",
        ),
        Ok(mut times) => {
            times.sort_unstable();
            let (median, worst) = (times[WRITES / 2], times[WRITES - 1]);
            let found = format!(
                "a synced write takes {:.1} ms, {:.1} ms at worst",
                median.as_secs_f64() * 1e3,
                worst.as_secs_f64() * 1e3
            );
            if median > SLOW_SYNC {
                Finding::warning(SUBJECT, found, "give a manager's data directory a faster disk")
            } else {
                Finding::fine(SUBJECT, found)
            }
        }
    }
}

fn synced_writes(path: &Path) -> io::Result<Vec<Duration>> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let times = (0..WRITES).map(|_| synced_write(&mut file)).collect();
    fs::remove_file(path)?;
    times
}

fn synced_write(file: &mut File) -> io::Result<Duration> {
    let begun = Instant::now();
    file.write_all(&[0; 4096])?;
    file.sync_data()?;
    Ok(begun.elapsed())
}

/// The data path: the device of the address that other nodes reach, and what drops packets.
pub fn network(data_address: Ipv4Addr) -> Vec<Finding> {
    const SUBJECT: &str = "data path";
    let examined = match swarm_network::examine(data_address) {
        Ok(examined) => examined,
        Err(error) => {
            let found = format!("{:#}", anyhow::Error::new(error));
            return vec![Finding::failure(SUBJECT, found, "use a kernel that has what is missing")];
        }
    };
    let device = match examined.mtu {
        None => Finding::failure(
            SUBJECT,
            format!("no device has the address {data_address}"),
            "give it back to this machine, or leave and join with another --data-path-addr",
        ),
        Some(mtu) if mtu < USUAL_MTU => Finding::warning(
            SUBJECT,
            format!("{data_address}, MTU {mtu}: tasks get {} bytes a packet", mtu.saturating_sub(50)),
            "raise the MTU of the device",
        ),
        Some(mtu) => Finding::fine(SUBJECT, format!("{data_address}, MTU {mtu}")),
    };
    let mut findings = vec![device];
    match &examined.firewalls[..] {
        [] => findings.push(Finding::fine("firewall", "none drops forwarded packets")),
        dropping => {
            findings.extend(dropping.iter().map(|text| match text.split_once("; ") {
                Some((found, advice)) => Finding::failure("firewall", found, advice),
                None => Finding::failure("firewall", text.clone(), ""),
            }));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_version_1_are_read_from_the_mounts() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/cpu rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
                      32 25 0:28 / /nowhere rw - cgroup2 cgroup2 rw\n";
        let (unified, legacy) = controllers(mounts);
        assert!(unified.is_empty());
        assert!(["memory", "cpu", "cpuacct"].iter().all(|name| legacy.iter().any(|one| one == name)));
    }
}
