//! The few file operations that the log is made of, so that tests can cut the power between any two of them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory of files.
pub trait Disk: Send {
    type File: DiskFile;

    /// For messages.
    fn path(&self, name: &str) -> PathBuf;
    fn list(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// A new file of `size` zero bytes, on disk already.
    fn create(&self, name: &str, size: u64) -> io::Result<Self::File>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
}

pub trait DiskFile: Send {
    fn size(&self) -> io::Result<u64>;
    fn read_all(&self) -> io::Result<Vec<u8>>;
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// The real one.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Opens a directory, which is made durably, readable by its owner only, if it does not exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        make_directory(path)?;
        Ok(Self(path.to_owned()))
    }
}

/// Makes a directory, and those above it, so that a power cut does not take them away again.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        // Its maker may have been cut off before it was durable.
        return path.parent().map_or(Ok(()), sync_directory);
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes creations, renames and removals in a directory durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

impl Disk for Directory {
    type File = File;

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path(name))
    }

    /// Zeros are written, not just reserved: a sync of an overwrite has no file metadata to journal, which halves it.
    fn create(&self, name: &str, size: u64) -> io::Result<File> {
        static BLOCK: [u8; 64 << 10] = [0; 64 << 10];
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.path(name))?;
        let mut offset = 0;
        while offset < size {
            let count = usize::try_from(size - offset).unwrap_or(BLOCK.len()).min(BLOCK.len());
            file.write_all_at(&BLOCK[..count], offset)?;
            offset += count as u64;
        }
        file.sync_all()?;
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_directory(&self.0)
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.size()?).map_err(io::Error::other)?];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
