//! The members of an archive, held by digest until it is decided what enters the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{ImportError, MAX_ARCHIVE_BYTES, MAX_MEMBERS, MAX_STAGED_FILES};
use crate::compression::{Inflate, InflateLimits};
use crate::manifest::{Documents, MAX_DOCUMENT_BYTES};
use crate::store::{BlobWriter, Ingested, MAX_BLOB_BYTES, Staged};
use crate::tarball::{EntryKind, TarReader};
use crate::{ContentStore, Descriptor, Digest, ManifestError};

/// Members up to this size are held in memory: documents mostly, of which old Docker archives have three per layer.
const SMALL_BYTES: u64 = 64 << 10;
/// What all small members may have together, before further ones are staged as files.
const MAX_MEMORY_BYTES: u64 = 32 << 20;
const MAX_LINKS_FOLLOWED: usize = 8;
const COPY_BUFFER_BYTES: usize = 256 << 10;

/// Members by name, contents by digest.
pub(super) struct Files {
    store: ContentStore,
    members: BTreeMap<String, Member>,
    contents: BTreeMap<Digest, Content>,
    memory_bytes: u64,
}

enum Member {
    File(Digest),
    /// The name, relative to the archive's root, that this one stands for.
    Link(String),
}

enum Content {
    Memory(Vec<u8>),
    Staged(Staged),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Staged(staged) => staged.size(),
        }
    }
}

impl Files {
    fn new(store: &ContentStore) -> Self {
        Self { store: store.clone(), members: BTreeMap::new(), contents: BTreeMap::new(), memory_bytes: 0 }
    }

    /// Reads a tar stream to its end.
    pub(super) fn from_tar(source: impl Read, store: &ContentStore) -> Result<Self, ImportError> {
        let mut files = Self::new(store);
        let limits = InflateLimits::up_to(MAX_ARCHIVE_BYTES);
        let broken = |source| ImportError::Tar { source: crate::TarError::Read { offset: 0, source } };
        let mut tar = TarReader::new(Inflate::sniffed(source, limits).map_err(broken)?);
        while let Some(entry) = tar.next()? {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let Some(name) = normalise("", &name) else {
                return Err(ImportError::member(&name, "has a name that leads out of the archive"));
            };
            match entry.kind {
                EntryKind::File { size } => {
                    let digest = files.take(size, |buffer| Ok(tar.read_content(buffer)?))?;
                    files.add(name, Member::File(digest))?;
                }
                EntryKind::Symlink { target } => {
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    files.add_link(&name, parent, &target)?;
                }
                EntryKind::Hardlink { target } => files.add_link(&name, "", &target)?,
                EntryKind::Directory => {}
                EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } | EntryKind::Fifo => {
                    return Err(ImportError::member(&name, "is a device, which no image archive has"));
                }
            }
        }
        tar.drain()?;
        Ok(files)
    }

    /// Reads the files of an OCI layout below a directory. Symbolic links are not followed.
    pub(super) fn from_directory(
        path: &Path,
        root: &File,
        store: &ContentStore,
    ) -> Result<Self, ImportError> {
        let mut files = Self::new(store);
        for name in ["oci-layout", "index.json", "manifest.json"] {
            files.add_from_directory(path, root, name.into())?;
        }
        let blobs = path.join("blobs/sha256");
        let open = |source| ImportError::Open { path: blobs.clone(), source };
        for entry in std::fs::read_dir(&blobs).map_err(open)? {
            let name = entry.map_err(open)?.file_name();
            files.add_from_directory(path, root, format!("blobs/sha256/{}", name.to_string_lossy()))?;
        }
        Ok(files)
    }

    fn add_from_directory(&mut self, path: &Path, root: &File, name: String) -> Result<(), ImportError> {
        let open = |source| ImportError::Open { path: path.join(&name), source };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut file = match rustix::fs::openat2(root, &name, flags, Mode::empty(), resolve) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(open(errno.into())),
        };
        let metadata = file.metadata().map_err(open)?;
        if !metadata.is_file() {
            return Err(ImportError::member(&name, "is not a regular file"));
        }
        let digest = self.take(metadata.len(), |buffer| file.read(buffer).map_err(open))?;
        self.add(name, Member::File(digest))
    }

    /// Takes one content of about `size` bytes from `read`, which returns 0 at its end.
    fn take(
        &mut self,
        size: u64,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, ImportError>,
    ) -> Result<Digest, ImportError> {
        let in_memory = size <= SMALL_BYTES && self.memory_bytes + size <= MAX_MEMORY_BYTES;
        if in_memory {
            let mut bytes = vec![0; size as usize];
            let mut filled = 0;
            while filled < bytes.len() {
                match read(&mut bytes[filled..])? {
                    0 => break,
                    more => filled += more,
                }
            }
            bytes.truncate(filled);
            return Ok(self.add_document(bytes));
        }
        let staged = stage(self.store.writer()?, read)?;
        let digest = *staged.digest();
        self.contents.entry(digest).or_insert(Content::Staged(staged));
        if self.contents.values().filter(|content| matches!(content, Content::Staged(_))).count()
            > MAX_STAGED_FILES
        {
            let what = format!("it holds more than {MAX_STAGED_FILES} layers");
            return Err(ImportError::Limit { what });
        }
        Ok(digest)
    }

    /// Adds content that is in memory.
    pub(super) fn add_document(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.memory_bytes += bytes.len() as u64;
        self.contents.entry(digest).or_insert(Content::Memory(bytes));
        digest
    }

    fn add_link(&mut self, name: &str, parent: &str, target: &[u8]) -> Result<(), ImportError> {
        match normalise(parent, &String::from_utf8_lossy(target)) {
            Some(target) => self.add(name.to_owned(), Member::Link(target)),
            None => Err(ImportError::member(name, "is a link that leads out of the archive")),
        }
    }

    fn add(&mut self, name: String, member: Member) -> Result<(), ImportError> {
        if let (Some(hex), Member::File(actual)) = (name.strip_prefix("blobs/sha256/"), &member)
            && hex != actual.hex()
        {
            let problem = format!("has the content {actual}: it is damaged, or its name is wrong");
            return Err(ImportError::member(&name, problem));
        }
        if self.members.len() >= MAX_MEMBERS {
            return Err(ImportError::Limit { what: format!("it has more than {MAX_MEMBERS} members") });
        }
        if self.members.contains_key(&name) {
            return Err(ImportError::member(&name, "is there twice"));
        }
        self.members.insert(name, member);
        Ok(())
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The digest and size of a member, links followed.
    pub(super) fn find(&self, name: &str) -> Result<(Digest, u64), ImportError> {
        let missing = || ImportError::member(name, "is missing");
        let mut at = normalise("", name).ok_or_else(missing)?;
        for _ in 0..MAX_LINKS_FOLLOWED {
            match self.members.get(&at).ok_or_else(missing)? {
                Member::File(digest) => return Ok((*digest, self.contents[digest].size())),
                Member::Link(target) => at = target.clone(),
            }
        }
        Err(ImportError::member(name, "is a chain of too many links"))
    }

    /// The content of a small member.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, ImportError> {
        let (digest, size) = self.find(name)?;
        if size > MAX_DOCUMENT_BYTES {
            let problem = format!("has {size} bytes, at most {MAX_DOCUMENT_BYTES} are read");
            return Err(ImportError::member(name, problem));
        }
        let mut bytes = Vec::new();
        let read = self.reader(&digest).map(|mut content| content.read_to_end(&mut bytes));
        match read {
            Some(Ok(_)) => Ok(bytes),
            Some(Err(error)) => Err(ImportError::member(name, format!("cannot be read: {error}"))),
            None => Err(ImportError::member(name, "is missing")),
        }
    }

    /// The content with this digest, from its start.
    pub(super) fn reader(&self, digest: &Digest) -> Option<Box<dyn Read + '_>> {
        match self.contents.get(digest)? {
            Content::Memory(bytes) => Some(Box::new(&bytes[..])),
            Content::Staged(staged) => Some(Box::new(At { file: staged.file(), offset: 0 })),
        }
    }

    /// Moves a content into the store; whether it was new there.
    pub(super) fn commit(&mut self, digest: &Digest) -> Result<bool, ImportError> {
        let ingested = match self.contents.remove(digest) {
            Some(Content::Staged(staged)) => staged.commit()?,
            Some(Content::Memory(bytes)) => {
                let mut writer = self.store.writer()?;
                writer.write(&bytes)?;
                writer.finish().commit()?
            }
            // Another image of this archive has the same blob.
            None => Ingested::AlreadyPresent,
        };
        Ok(ingested == Ingested::New)
    }
}

impl Documents for Files {
    fn has(&self, blob: &Descriptor) -> bool {
        self.contents.get(&blob.digest).is_some_and(|content| content.size() == blob.size)
    }

    fn read(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>, ManifestError> {
        if !self.has(blob) {
            return Ok(None);
        }
        let Some(mut content) = self.reader(&blob.digest) else { return Ok(None) };
        let mut bytes = Vec::new();
        match content.read_to_end(&mut bytes) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) => Err(crate::manifest::refused(&blob.digest, format!("it cannot be read: {error}"))),
        }
    }
}

fn stage(
    mut writer: BlobWriter,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, ImportError>,
) -> Result<Staged, ImportError> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        match read(&mut buffer)? {
            0 => return Ok(writer.finish()),
            _ if writer.size() > MAX_BLOB_BYTES => {
                let what = format!("a member has more than {MAX_BLOB_BYTES} bytes");
                return Err(ImportError::Limit { what });
            }
            filled => writer.write(&buffer[..filled])?,
        }
    }
}

/// Reads a file without moving its own position, which all readers share.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// `name` seen from the directory `parent`, without `.`, `..` and doubled slashes; `None` where it leads out.
fn normalise(parent: &str, name: &str) -> Option<String> {
    let parent = if name.starts_with('/') { "" } else { parent };
    let mut parts: Vec<&str> = Vec::new();
    for part in parent.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_archive() {
        let check = |parent, name, expect: Option<&str>| {
            assert_eq!(normalise(parent, name).as_deref(), expect, "{name:?} in {parent:?}");
        };
        check("", "./a//b/", Some("a/b"));
        check("a", "../b/layer.tar", Some("b/layer.tar"));
        check("a", "/b", Some("b"));
        check("a", "../../b", None);
        check("", "..", None);
    }
}
