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
    /// Opens a directory, which is made, readable by its owner only, if it does not exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self(path.to_owned()))
    }
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
        File::open(&self.0)?.sync_all()
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
