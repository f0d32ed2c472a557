//! Removing a directory tree that a container wrote, without ever leaving it.
//!
//! Names are resolved one by one below open directories and links are never followed. Directories
//! may be nested as deep as the container liked: each is moved up to one place before it is
//! emptied, so neither open files nor stack grow with the depth.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with, unlinkat,
};
use rustix::io::Errno;

/// Where directories wait to be emptied, inside the tree that is removed. A container cannot make
/// it, because its files are two levels below.
const WAITING: &str = "removing";

/// Removes `root/name` with all that is in it. Nothing there is fine.
pub fn tree(root: &Path, name: &str) -> io::Result<()> {
    let root = openat(CWD, root, directory_flags(), Mode::empty())?;
    let top = match openat(&root, name, directory_flags(), Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut removal = Removal::start(&top)?;
    removal.empty(top.as_fd())?;
    while let Some(directory) = removal.next()? {
        removal.empty(directory.as_fd())?;
    }
    unlinkat(&top, WAITING, AtFlags::REMOVEDIR)?;
    unlinkat(&root, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

fn directory_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC
}

struct Removal {
    waiting: OwnedFd,
    /// Name of the next directory that is put to wait.
    put: u64,
    /// Name of the next that is taken. Equal to `put` when none waits.
    take: u64,
}

impl Removal {
    fn start(top: &OwnedFd) -> io::Result<Self> {
        match mkdirat(top, WAITING, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let waiting = openat(top, WAITING, directory_flags(), Mode::empty())?;
        let mut removal = Self { waiting, put: 0, take: 0 };
        removal.resume()?;
        Ok(removal)
    }

    /// Takes over what an earlier removal, cut off, had put to wait.
    fn resume(&mut self) -> io::Result<()> {
        let mut numbers = Vec::new();
        for entry in Dir::read_from(&self.waiting)? {
            let entry = entry?;
            let name = entry.file_name().to_str().ok();
            numbers.extend(name.and_then(|name| name.parse::<u64>().ok()));
        }
        self.take = numbers.iter().copied().min().unwrap_or(0);
        self.put = numbers.iter().copied().max().map_or(0, |last| last + 1);
        Ok(())
    }

    /// Unlinks everything in a directory, and puts its directories to wait.
    fn empty(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                self.put_to_wait(directory, name)?;
                continue;
            }
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => self.put_to_wait(directory, name)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn put_to_wait(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        if name.to_bytes() == WAITING.as_bytes() && self.is_waiting_place(parent, name)? {
            return Ok(());
        }
        // Most directories are empty, or become so at once.
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let number = self.put.to_string();
        renameat_with(parent, name, &self.waiting, &number, RenameFlags::NOREPLACE)?;
        self.put += 1;
        Ok(())
    }

    fn is_waiting_place(&self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let waiting = rustix::fs::fstat(&self.waiting)?;
        Ok((stat.st_dev, stat.st_ino) == (waiting.st_dev, waiting.st_ino))
    }

    /// A waiting directory, to be emptied; those that were emptied are removed.
    fn next(&mut self) -> io::Result<Option<OwnedFd>> {
        while self.take < self.put {
            let name = self.take.to_string();
            match unlinkat(&self.waiting, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => self.take += 1,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let opened = openat(&self.waiting, &name, directory_flags(), Mode::empty())?;
                    return Ok(Some(opened));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}
