//! Creating files below one directory and nowhere else, whatever the names say.
//!
//! Every operation names one component below a directory that was opened by `openat2` beneath the root. A parent that
//! is a symbolic link is followed as a container would see it, inside the root; links are never followed otherwise.
//! No operation uses a path from outside.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::tarball::Time;

/// For directories that no entry describes.
const IMPLIED_DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const READ_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// `openat2` gives up when anything on the machine is renamed or mounted while it walks through `..`.
const MAX_RESOLVE_ATTEMPTS: usize = 64;
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Why an operation failed: because of the layer, or because of the file system.
#[derive(Debug)]
pub(super) enum Failure {
    /// The rest of a sentence about the entry.
    Refused(String),
    /// A verb, and what the kernel said.
    Failed(&'static str, io::Error),
}

fn failed(action: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::Failed(action, errno.into())
}

/// Owner, permissions and time of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) mtime: Time,
}

/// A directory tree that is being filled.
pub(super) struct Tree {
    root: OwnedFd,
    /// Takes directories that a later entry replaced.
    trash: OwnedFd,
    trashed: u64,
    max_depth: usize,
    /// The directory that the last entry was created in: entries of one directory usually follow one another.
    current: Option<Current>,
}

struct Current {
    path: Vec<u8>,
    dir: OwnedFd,
    /// Creating entries changes it, so it is put back.
    mtime: Timespec,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, trash: OwnedFd, max_depth: usize) -> Self {
        Self { root, trash, trashed: 0, max_depth, current: None }
    }

    /// Makes `path` the directory that the following operations work in; it is created if it does not exist.
    pub(super) fn enter(&mut self, path: &[u8]) -> Result<(), Failure> {
        if self.current.as_ref().is_some_and(|current| current.path == path) {
            return Ok(());
        }
        self.leave()?;
        let dir = self.open_dir(path, Missing::Create)?;
        let stat = rustix::fs::fstat(&dir).map_err(failed("look at the directory of"))?;
        let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
        self.current = Some(Current { path: path.to_vec(), dir, mtime });
        Ok(())
    }

    /// Ends work in the current directory.
    pub(super) fn leave(&mut self) -> Result<(), Failure> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ };
        let times = Timestamps { last_access: omit, last_modification: current.mtime };
        rustix::fs::futimens(&current.dir, &times).map_err(failed("set the time of the directory of"))
    }

    fn current(&self) -> BorrowedFd<'_> {
        self.current.as_ref().map_or(self.root.as_fd(), |current| current.dir.as_fd())
    }

    /// The root itself, for its attributes.
    pub(super) fn root(&mut self) -> Result<OwnedFd, Failure> {
        self.leave()?;
        self.open_dir(b"", Missing::Fail)
    }

    /// Creates a directory, or opens the one that an earlier entry created.
    pub(super) fn directory(&mut self, name: &[u8]) -> Result<OwnedFd, Failure> {
        let existing = self.existing(name)?;
        if existing != Some(Existing::Directory) {
            if existing.is_some() {
                self.remove(name)?;
            }
            rustix::fs::mkdirat(self.current(), name, Mode::RWXU).map_err(failed("create directory"))?;
        }
        let dir = rustix::fs::openat(self.current(), name, READ_DIRECTORY, Mode::empty())
            .map_err(failed("open directory"))?;
        if existing == Some(Existing::Whiteout) {
            set_opaque(&dir)?;
        }
        // Its own time is set now; were it left later, an older one would be put back.
        Ok(dir)
    }

    /// Creates an empty file, open for writing.
    pub(super) fn file(&mut self, name: &[u8]) -> Result<OwnedFd, Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |dir: BorrowedFd<'_>| rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR);
        self.create(name, create).map_err(|failure| failure.or("create file"))
    }

    pub(super) fn symlink(&mut self, name: &[u8], target: &[u8]) -> Result<(), Failure> {
        if target.is_empty() {
            return Err(Failure::Refused("is a symbolic link to nothing".into()));
        }
        self.create(name, |dir| rustix::fs::symlinkat(target, dir, name))
            .map_err(|failure| failure.or("create symbolic link"))
    }

    /// Gives the file `target_name` in the directory `target_parent` a second name.
    pub(super) fn hardlink(
        &mut self,
        name: &[u8],
        target_parent: &[u8],
        target_name: &[u8],
    ) -> Result<(), Failure> {
        let source = self.open_dir(target_parent, Missing::Fail)?;
        // Without AT_SYMLINK_FOLLOW a link to a symbolic link is a second name of that symbolic link.
        let link =
            |dir: BorrowedFd<'_>| rustix::fs::linkat(&source, target_name, dir, name, AtFlags::empty());
        self.create(name, link).map_err(|failure| match failure {
            CreateFailure::Kernel(Errno::NOENT) => {
                Failure::Refused("is a hard link to a file that is not in the layer".into())
            }
            CreateFailure::Kernel(Errno::PERM) => Failure::Refused("is a hard link to a directory".into()),
            other => other.or("create hard link"),
        })
    }

    pub(super) fn node(&mut self, name: &[u8], kind: FileType, device: (u32, u32)) -> Result<(), Failure> {
        let device = rustix::fs::makedev(device.0, device.1);
        self.create(name, |dir| rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device))
            .map_err(|failure| failure.or("create device"))
    }

    /// Hides `name` of lower layers. What this layer itself has under the name stays, alone.
    pub(super) fn whiteout(&mut self, name: &[u8]) -> Result<(), Failure> {
        match self.existing(name)? {
            Some(Existing::Whiteout | Existing::Other) => Ok(()),
            Some(Existing::Directory) => {
                let dir = rustix::fs::openat(self.current(), name, READ_DIRECTORY, Mode::empty());
                set_opaque(&dir.map_err(failed("open directory"))?)
            }
            None => self.node(name, FileType::CharacterDevice, (0, 0)),
        }
    }

    /// Hides everything that lower layers have in the current directory.
    pub(super) fn opaque(&self) -> Result<(), Failure> {
        set_opaque(self.current())
    }

    /// Sets owner, permissions and time of what is neither a file nor a directory.
    pub(super) fn set_attributes(
        &self,
        name: &[u8],
        attributes: Attributes,
        has_mode: HasMode,
    ) -> Result<(), Failure> {
        let (dir, Attributes { uid, gid, mode, mtime }) = (self.current(), attributes);
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner of"))?;
        match has_mode {
            // The name is a device or a pipe of ours, so there is no link to follow.
            HasMode::Yes => rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
                .map_err(failed("set the permissions of"))?,
            HasMode::No => {}
        }
        rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the time of"))
    }

    fn existing(&self, name: &[u8]) -> Result<Option<Existing>, Failure> {
        match rustix::fs::statat(self.current(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Existing::Directory,
                FileType::CharacterDevice if stat.st_rdev == 0 => Existing::Whiteout,
                _ => Existing::Other,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("look at")(errno)),
        }
    }

    /// Creates a name, replacing what an earlier entry of the layer put there: the last one counts.
    fn create<T>(
        &mut self,
        name: &[u8],
        create: impl Fn(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, CreateFailure> {
        match create(self.current()) {
            Err(Errno::EXIST) => {
                self.remove(name).map_err(CreateFailure::Replace)?;
                create(self.current()).map_err(CreateFailure::Kernel)
            }
            other => other.map_err(CreateFailure::Kernel),
        }
    }

    fn remove(&mut self, name: &[u8]) -> Result<(), Failure> {
        if self.existing(name)? != Some(Existing::Directory) {
            return rustix::fs::unlinkat(self.current(), name, AtFlags::empty()).map_err(failed("replace"));
        }
        self.trashed += 1;
        let place = self.trashed.to_string();
        rustix::fs::renameat(self.current(), name, &self.trash, place).map_err(failed("replace directory"))
    }

    fn open_dir(&self, path: &[u8], missing: Missing) -> Result<OwnedFd, Failure> {
        let path = if path.is_empty() { b"." } else { path };
        match self.resolve(path, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Ok(dir) => return Ok(dir),
            Err(Errno::NOENT) => {}
            // A link on the way. The container would follow it below its own root, and so do we.
            Err(Errno::LOOP) => match self.resolve(path, ResolveFlags::IN_ROOT) {
                Ok(dir) => return self.checked_depth(dir),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(unusable_parent(errno)),
            },
            Err(errno) => return Err(unusable_parent(errno)),
        }
        match missing {
            Missing::Create => self.create_dir(path),
            Missing::Fail => {
                Err(Failure::Refused("is a link into a directory that is not in the layer".into()))
            }
        }
    }

    fn create_dir(&self, path: &[u8]) -> Result<OwnedFd, Failure> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        let parent = self.open_dir(parent, Missing::Create)?;
        match rustix::fs::mkdirat(&parent, name, IMPLIED_DIRECTORY_MODE) {
            Ok(()) => {}
            // Not found and yet there: a link that leads nowhere.
            Err(Errno::EXIST) => return Err(unusable_parent(Errno::LOOP)),
            Err(errno) => return Err(failed("create the directory of")(errno)),
        }
        let dir = rustix::fs::openat(&parent, name, READ_DIRECTORY, Mode::empty());
        self.checked_depth(dir.map_err(failed("open the directory of"))?)
    }

    fn resolve(&self, path: &[u8], how: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = how | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for _ in 1..MAX_RESOLVE_ATTEMPTS {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// Through links, short paths reach deep directories; without a bound, removing them would exhaust the process.
    fn checked_depth(&self, dir: OwnedFd) -> Result<OwnedFd, Failure> {
        let (root, path) = (depth(&self.root)?, depth(&dir)?);
        if path.saturating_sub(root) > self.max_depth {
            let most = self.max_depth;
            return Err(Failure::Refused(format!("is, through links, more than {most} directories deep")));
        }
        Ok(dir)
    }
}

fn depth(dir: &OwnedFd) -> Result<usize, Failure> {
    let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new()).map_err(|errno| match errno {
        Errno::NAMETOOLONG => Failure::Refused("is deeper than any path can tell".into()),
        other => failed("locate the directory of")(other),
    })?;
    Ok(path.as_bytes().iter().filter(|byte| **byte == b'/').count())
}

fn unusable_parent(errno: Errno) -> Failure {
    match errno {
        Errno::LOOP => Failure::Refused("is below a symbolic link that leads nowhere".into()),
        Errno::NOTDIR => Failure::Refused("is below something that is not a directory".into()),
        Errno::XDEV => Failure::Refused("leads out of the layer".into()),
        other => failed("open the directory of")(other),
    }
}

/// What to do about directories on the way that do not exist.
#[derive(Clone, Copy)]
enum Missing {
    Create,
    Fail,
}

/// Symbolic links have no permissions.
#[derive(Clone, Copy)]
pub(super) enum HasMode {
    Yes,
    No,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Directory,
    Whiteout,
    Other,
}

enum CreateFailure {
    Kernel(Errno),
    Replace(Failure),
}

impl CreateFailure {
    fn or(self, action: &'static str) -> Failure {
        match self {
            Self::Kernel(errno) => failed(action)(errno),
            Self::Replace(failure) => failure,
        }
    }
}

fn set_opaque(dir: impl AsFd) -> Result<(), Failure> {
    rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty()).map_err(failed("make opaque"))
}

/// Sets owner, permissions, extended attributes and time of a file or directory, in the order that keeps them all: a
/// change of owner clears setuid bits and capabilities.
pub(super) fn set_attributes(
    file: &OwnedFd,
    attributes: Attributes,
    xattrs: &[(Vec<u8>, Vec<u8>)],
) -> Result<(), Failure> {
    let Attributes { uid, gid, mode, mtime } = attributes;
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(failed("set the owner of"))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(failed("set the permissions of"))?;
    for (name, value) in xattrs.iter().filter(|(name, _)| is_accepted(name)) {
        match rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
            // Not every file system has user attributes; Docker drops them there, too.
            Err(Errno::OPNOTSUPP) if name.starts_with(b"user.") => {}
            other => other.map_err(failed("set an extended attribute of"))?,
        }
    }
    rustix::fs::futimens(file, &times(mtime)).map_err(failed("set the time of"))
}

/// File capabilities and user attributes. Attributes that steer overlayfs are the layer store's own business, and
/// labels of security modules are the host's.
fn is_accepted(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

fn times(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
