//! Who the container's first process is, by the image's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use super::executor::DEFAULT_PATH;
use super::rootfs::RootFs;
use super::{Failure, reason};
use crate::spec::ContainerSpec;

/// Most that is read of `/etc/passwd` or `/etc/group`. Large directories have a name service.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// Highest number of a user or group: the kernel keeps -1 for "no change", and C programs break
/// on negative ones (CVE-2024-40635).
const ID_LIMIT: u32 = i32::MAX as u32;
/// Most groups that the kernel gives a process.
const GROUPS_LIMIT: usize = 65_536;

/// A user of the image, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Ordered and without repetitions.
    pub groups: Vec<u32>,
    home: String,
}

/// Resolves the user and groups of a specification.
pub fn resolve(root: &RootFs, spec: &ContainerSpec) -> Result<User, Failure> {
    let refused = |reason| Failure::User { user: spec.user.clone(), reason };
    let passwd = read(root, "/etc/passwd").map_err(&refused)?;
    let group = read(root, "/etc/group").map_err(&refused)?;
    find(&passwd, &group, &spec.user, &spec.additional_groups).map_err(refused)
}

impl User {
    /// The environment of the specification with what every process needs.
    pub fn environment(&self, given: &[String]) -> Vec<String> {
        let mut environment = Vec::with_capacity(given.len() + 2);
        for (index, entry) in given.iter().enumerate() {
            let name = entry.split('=').next().unwrap_or_default();
            let same = |later: &String| later.split('=').next() == Some(name);
            if !given[index + 1..].iter().any(same) {
                environment.push(entry.clone());
            }
        }
        for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", &self.home)] {
            let prefix = format!("{name}=");
            if !environment.iter().any(|entry| entry.starts_with(&prefix)) {
                environment.push(format!("{prefix}{value}"));
            }
        }
        environment
    }
}

/// The text of a file of the image; empty where there is none.
fn read(root: &RootFs, path: &str) -> Result<String, String> {
    // Not to be held up by a named pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match root.resolve(Path::new(path), flags) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(format!("cannot read {path} of the image: {}", reason(error))),
    };
    let kind = rustix::fs::fstat(&file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if kind != Ok(FileType::RegularFile) {
        return Err(format!("{path} of the image is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(FILE_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read {path} of the image: {}", reason(error)))?;
    if bytes.len() as u64 > FILE_LIMIT_BYTES {
        return Err(format!("{path} of the image is larger than {FILE_LIMIT_BYTES} bytes"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A user of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        Some(Account { name, uid: number(uid)?, gid: number(gid)?, home })
    })
}

/// Name, number and members of the groups of `/etc/group`.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members] = fields[..] else { return None };
        Some((name, number(gid)?, members))
    })
}

/// A decimal number that may be an id; `+5`, `0x0` and `-1` are none.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok())??;
    (number <= ID_LIMIT).then_some(number)
}

fn find(passwd: &str, group: &str, user: &str, additional: &[String]) -> Result<User, String> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let by_number = number(name);
    let account = accounts(passwd)
        .find(|account| account.name == name)
        .or_else(|| accounts(passwd).find(|account| Some(account.uid) == by_number));
    let uid = match (&account, by_number) {
        (Some(account), _) => account.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(unknown("user", name, "/etc/passwd")),
    };
    let mut all: Vec<u32> = Vec::new();
    let gid = match group_name.filter(|group| !group.is_empty()) {
        Some(wanted) => find_group(group, wanted)?,
        None => {
            if let Some(account) = &account {
                all.extend(memberships(group, account.name));
            }
            account.as_ref().map_or(0, |account| account.gid)
        }
    };
    for wanted in additional {
        all.push(find_group(group, wanted)?);
    }
    all.push(gid);
    all.sort_unstable();
    all.dedup();
    if all.len() > GROUPS_LIMIT {
        return Err(format!("is in more than {GROUPS_LIMIT} groups"));
    }
    let home = account.map_or("/", |account| account.home);
    let home = if home.is_empty() { "/" } else { home };
    Ok(User { uid, gid, groups: all, home: home.to_owned() })
}

fn find_group(group: &str, wanted: &str) -> Result<u32, String> {
    groups(group)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .or_else(|| number(wanted))
        .ok_or_else(|| unknown("group", wanted, "/etc/group"))
}

fn memberships<'a>(group: &'a str, name: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(group)
        .filter(move |(_, _, members)| members.split(',').any(|member| member == name))
        .map(|(_, gid, _)| gid)
}

fn unknown(what: &str, name: &str, file: &str) -> String {
    let numeric = name.starts_with(|first: char| first.is_ascii_digit() || "+-".contains(first));
    if numeric {
        format!("{name:?} is not a {what}'s number; it must be 0 to {ID_LIMIT}, in decimal")
    } else {
        format!("the image's {file} has no {what} {name:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken line\n\
        web:x:33:44:Web:/var/www:/bin/false\n\
        12:x:99:99::/odd:\n\
        huge:x:4294967295:1::/:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:web,root\nwww:x:44:\nlog:x:7:web\n";

    fn check(user: &str, additional: &[&str], expect: Result<(u32, u32, &[u32], &str), &str>) {
        let additional: Vec<String> = additional.iter().map(ToString::to_string).collect();
        let found = find(PASSWD, GROUP, user, &additional);
        match (found, expect) {
            (Ok(user), Ok((uid, gid, groups, home))) => {
                assert_eq!((user.uid, user.gid, user.home.as_str()), (uid, gid, home));
                assert_eq!(user.groups, groups);
            }
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (found, expect) => panic!("{user:?}: {found:?}, not {expect:?}"),
        }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check("", &[], Ok((0, 0, &[0, 4], "/root")));
        check("web", &[], Ok((33, 44, &[4, 7, 44], "/var/www")));
        check("33", &[], Ok((33, 44, &[4, 7, 44], "/var/www")));
        check("12", &[], Ok((99, 99, &[99], "/odd")));
        check("1000", &[], Ok((1000, 0, &[0], "/")));
        check("web:adm", &[], Ok((33, 4, &[4], "/var/www")));
        check("1000:2000", &["adm", "5"], Ok((1000, 2000, &[4, 5, 2000], "/")));
        check(":7", &[], Ok((0, 7, &[7], "/root")));
    }

    #[test]
    fn what_might_become_root_by_accident_is_refused() {
        for user in ["-1", "0x0", "+0", "2147483648", "4294967295", "4294967296", "18446744073709551616"] {
            check(user, &[], Err("is not a user's number"));
        }
        check("huge", &[], Err("has no user"));
        check("web:-1", &[], Err("is not a group's number"));
        check("nobody", &[], Err("has no user \"nobody\""));
        check("web", &["nogroup"], Err("has no group \"nogroup\""));
        check(" 0", &[], Err("has no user"));
    }

    #[test]
    fn the_last_of_equal_names_wins_and_gaps_are_filled() {
        let user = find(PASSWD, GROUP, "web", &[]).unwrap();
        let given = ["A=1", "B=2", "A=3"].map(str::to_owned);
        let expect = ["B=2", "A=3", &format!("PATH={DEFAULT_PATH}"), "HOME=/var/www"];
        assert_eq!(user.environment(&given), expect);
    }
}
