//! A disk in memory whose power can be cut at any operation, for proofs.
//!
//! What was not synced survives in any mixture: each sector holds any of the contents that it went through since its last
//! sync, the last one perhaps only up to some byte; of directory changes that were not synced, any may be missing.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::RngExt;
use rand::rngs::StdRng;

use super::disk::{Disk, DiskFile};
use super::frame::SECTOR;

/// What a power cut leaves of what was not synced.
#[derive(Debug)]
pub enum Left<'a> {
    Nothing,
    Everything,
    /// All but the last write, and of that one so many bytes.
    TornAt(usize),
    Any(&'a mut StdRng),
}

#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<Platter>>);

#[derive(Debug)]
pub struct FaultyFile(Arc<Mutex<Platter>>, usize);

#[derive(Debug, Clone, Default)]
struct Platter {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Since the directory was synced.
    changes: Vec<Change>,
    /// Operations that changed something, so far.
    operations: usize,
    /// The operation at which the power goes.
    cut_at: Option<usize>,
    /// For disks that are made of this one.
    cut_of_copies: Option<usize>,
    /// Syncs fail from here on, as those of a dying disk.
    syncs_fail: bool,
    /// File of the last write.
    last: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync.
    writes: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl FaultyDisk {
    /// The power goes at that operation: it is begun, and nothing after it happens.
    pub fn cut_at(&self, operation: usize) {
        self.platter().cut_at = Some(operation);
    }

    /// The power of what [`FaultyDisk::after_cut`] makes of this disk goes at that operation.
    pub fn set_cut_of_copies(&self, operation: Option<usize>) {
        self.platter().cut_of_copies = operation;
    }

    pub fn operations(&self) -> usize {
        self.platter().operations
    }

    pub fn has_power(&self) -> bool {
        let platter = self.platter();
        platter.cut_at.is_none_or(|at| platter.operations <= at)
    }

    pub fn fail_syncs(&self) {
        self.platter().syncs_fail = true;
    }

    /// Bytes of the last write that was not synced.
    pub fn last_write(&self) -> usize {
        let platter = self.platter();
        let last = platter.last.and_then(|file| platter.files[file].writes.last());
        last.map_or(0, |(_, bytes)| bytes.len())
    }

    /// What is there when the power is back.
    pub fn after_cut(&self, mut left: Left<'_>) -> Self {
        let mut platter = self.platter().clone();
        let last = platter.last;
        for (file, content) in platter.files.iter_mut().enumerate() {
            let survived = content.survive(&mut left, last == Some(file));
            *content = Content { now: survived.clone(), durable: survived, writes: Vec::new() };
        }
        let mut names = std::mem::take(&mut platter.durable_names);
        for change in &platter.changes {
            let kept = match &mut left {
                Left::Nothing => false,
                Left::Everything | Left::TornAt(_) => true,
                Left::Any(random) => random.random_bool(0.5),
            };
            if kept {
                change.apply(&mut names);
            }
        }
        let (files, cut_at) = (platter.files, platter.cut_of_copies);
        let platter =
            Platter { cut_at, files, names: names.clone(), durable_names: names, ..Platter::default() };
        Self(Arc::new(Mutex::new(platter)))
    }

    /// The process was killed and the machine went on: everything is there, and what was not synced still is not.
    pub fn restart(&self) -> Self {
        let mut platter = self.platter().clone();
        (platter.operations, platter.cut_at) = (0, None);
        Self(Arc::new(Mutex::new(platter)))
    }

    /// The same files, as another disk.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.platter().clone())))
    }

    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut platter = self.platter();
        let file = platter.names[name];
        edit(&mut platter.files[file].now);
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("no test panics while it holds it")
    }
}

impl Platter {
    /// Counts an operation. Where the power goes in it, `begin` leaves what it leaves.
    fn operate(&mut self, begin: impl FnOnce(&mut Self)) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        match self.cut_at {
            Some(at) if number > at => Err(gone()),
            Some(at) if number == at => {
                begin(self);
                Err(gone())
            }
            Some(_) | None => {
                begin(self);
                Ok(())
            }
        }
    }
}

impl Content {
    fn survive(&self, left: &mut Left<'_>, has_last: bool) -> Vec<u8> {
        match left {
            Left::Nothing => self.durable.clone(),
            Left::Everything => self.now.clone(),
            Left::TornAt(bytes) => {
                let mut content = self.durable.clone();
                let (torn, whole) = match self.writes.split_last() {
                    Some((last, whole)) if has_last => (Some(last), whole),
                    _ => (None, &self.writes[..]),
                };
                whole.iter().for_each(|(at, data)| content[*at..at + data.len()].copy_from_slice(data));
                if let Some((at, data)) = torn {
                    let count = (*bytes).min(data.len());
                    content[*at..at + count].copy_from_slice(&data[..count]);
                }
                content
            }
            Left::Any(random) => self.any(random),
        }
    }

    fn any(&self, random: &mut StdRng) -> Vec<u8> {
        let mut content = self.durable.clone();
        // Often whole parts survive or not; one in four sectors is anything.
        for start in (0..content.len()).step_by(SECTOR) {
            let end = (start + SECTOR).min(content.len());
            let pieces: Vec<(usize, &[u8])> = (self.writes.iter())
                .filter_map(|(at, data)| {
                    let (from, to) = (start.max(*at), end.min(at + data.len()));
                    (from < to).then(|| (from, &data[from - at..to - at]))
                })
                .collect();
            let kept = random.random_range(0..=pieces.len());
            for (at, data) in &pieces[..kept] {
                content[*at..at + data.len()].copy_from_slice(data);
            }
            if let Some((at, data)) = pieces.get(kept)
                && random.random_bool(0.25)
            {
                let count = random.random_range(0..data.len());
                content[*at..at + count].copy_from_slice(&data[..count]);
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.platter().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        let file = self.platter().names.get(name).copied();
        Ok(FaultyFile(Arc::clone(&self.0), file.ok_or(io::ErrorKind::NotFound)?))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<FaultyFile> {
        let mut platter = self.platter();
        let zeros = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        let file = platter.files.len();
        platter.operate(|platter| {
            // Cut off, it has some other size.
            platter.files.push(Content::default());
            platter.changes.push(Change::Create(name.to_owned(), file));
            platter.names.insert(name.to_owned(), file);
        })?;
        platter.operate(|_| ())?;
        platter.files[file] = Content { now: zeros.clone(), durable: zeros, writes: Vec::new() };
        drop(platter);
        Ok(FaultyFile(Arc::clone(&self.0), file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.platter();
        let file = platter.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        let change = Change::Rename(from.to_owned(), to.to_owned(), file);
        platter.operate(|platter| {
            change.apply(&mut platter.names);
            platter.changes.push(change);
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut platter = self.platter();
        platter.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let change = Change::Remove(name.to_owned());
        platter.operate(|platter| {
            change.apply(&mut platter.names);
            platter.changes.push(change);
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.operate(|_| ())?;
        platter.changes.clear();
        platter.durable_names = platter.names.clone();
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.read_all()?.len() as u64)
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        let platter = self.0.lock().expect("no test panics while it holds it");
        Ok(platter.files[self.1].now.clone())
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut platter = self.0.lock().expect("no test panics while it holds it");
        let file = self.1;
        platter.operate(|platter| {
            let content = &mut platter.files[file];
            content.now[start..start + bytes.len()].copy_from_slice(bytes);
            content.writes.push((start, bytes.to_vec()));
            platter.last = Some(file);
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut platter = self.0.lock().expect("no test panics while it holds it");
        if platter.syncs_fail {
            return Err(io::Error::other("the disk is dying"));
        }
        platter.operate(|_| ())?;
        let content = &mut platter.files[self.1];
        content.durable = content.now.clone();
        content.writes.clear();
        platter.last = None;
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::other("the power is gone")
}
