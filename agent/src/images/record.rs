//! Which images are here: what their digest points to, and when each was last used.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use swarm_image::{Descriptor, Digest};

#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The name under which it was last used.
    pub name: String,
    /// The index or manifest that the image's digest names.
    pub target: Descriptor,
}

impl Records {
    pub fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    pub fn write(&self, name: &str, target: &Descriptor) -> io::Result<()> {
        let record = Record { name: name.to_owned(), target: target.clone() };
        let path = self.path(&target.digest);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(&record)?)?;
        fs::rename(fresh, path)
    }

    /// What `digest` points to. A record that cannot be read is as good as none: the image is fetched again.
    pub fn find(&self, digest: &Digest) -> Option<Descriptor> {
        let record = read(&self.path(digest))?;
        (record.target.digest == *digest).then_some(record.target)
    }

    /// All records, with the time of their last use.
    pub fn list(&self) -> io::Result<Vec<(Record, SystemTime)>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if let (Some(record), Ok(used)) =
                (read(&path), fs::metadata(&path).and_then(|file| file.modified()))
            {
                records.push((record, used));
            }
        }
        Ok(records)
    }

    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        fs::remove_file(self.path(digest))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}.json", digest.hex()))
    }
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
