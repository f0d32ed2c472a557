//! The file that holds the data key: in the clear, or wrapped with the unlock key.
//!
//! It is replaced as a whole, durably and by rename, so a power cut leaves the old one or the new one. A manager without
//! it cannot read its own disk, so it is made once, before anything is encrypted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{DataKey, UnlockKey};
use crate::log::disk::{make_directory, sync_directory};

const NAME: &str = "data.key";
const FORMAT: u32 = 1;
/// It has some 200.
const MAX_BYTES: u64 = 4 << 10;
const CONTEXT: &[u8] = b"swarm data key 1";
/// Of a private key's PEM text, wrapped with the data key.
const PRIVATE_KEY_CONTEXT: &[u8] = b"swarm node key 1";

/// Why the data key cannot be had. The texts are for an operator whose manager does not start.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot {action} the manager's data key {path}", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the manager's data key {path} is gone, so nothing of its state can be read. Put the file back if there is a copy; \
         if the cluster has other managers, run `swarmctl node rm --force` for this node at one of them, move this node's \
         data directory aside, and join again; if this is the only one, restore the cluster from a backup. (State of a \
         build before encryption has no such file, and is not read by this one.)", path = path.display()
    )]
    Gone { path: PathBuf },
    #[error("the manager's data key {path} is damaged: {what}; put a copy of it back, or go on as if it were lost: if the \
             cluster has other managers, run `swarmctl node rm --force` for this node at one of them, move this node's data \
             directory aside, and join again; if this is the only one, restore the cluster from a backup",
            path = path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error(
        "that is not the key that this manager was locked with: it was locked with key {locked_with}, the one given is key \
         {given}. If the key was rotated while this manager was down, it wants the one before; `swarmctl cluster \
         unlock-key` on an unlocked manager prints the present one with its number"
    )]
    WrongKey { locked_with: String, given: String },
}

/// As it is on disk.
#[derive(Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Base64, of the key itself or wrapped.
    key: String,
    /// Number of the unlock key that it is wrapped with.
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_with: Option<String>,
    /// Of the cluster's decision that it follows.
    version: u64,
    /// Of all that.
    crc32: u32,
}

/// What the file of a manager yields at start.
#[derive(Debug)]
pub enum Opened {
    Unlocked(Keyring),
    Locked(Locked),
}

/// A manager's data key, and its file.
#[derive(Debug, Clone)]
pub struct Keyring(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    key: DataKey,
    lock: watch::Sender<Lock>,
}

/// What the file says of the lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Lock {
    /// Number of the unlock key.
    with: Option<String>,
    /// Of the cluster's decision that it follows.
    version: u64,
}

/// A wrapped data key.
#[derive(Debug)]
pub struct Locked {
    path: PathBuf,
    sealed: Vec<u8>,
    locked_with: String,
    version: u64,
}

impl Keyring {
    /// Makes a new data key, durably, in a manager's directory, which is made if absent. What lies there encrypted with
    /// an earlier key can never be read again.
    ///
    /// # Errors
    /// The disk refused.
    pub fn create(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(NAME);
        make_directory(directory).map_err(|source| io_error("create", &path, source))?;
        let ring = Self::of(path, DataKey::generate(), Lock::default());
        ring.write(None, Lock::default())?;
        Ok(ring)
    }

    /// Reads the file of a manager's directory.
    ///
    /// # Errors
    /// There is none, it is damaged, or the disk refused.
    pub fn open(directory: &Path) -> Result<Opened, KeyError> {
        let path = directory.join(NAME);
        let content = read(&path)?;
        let damaged = |what| KeyError::Damaged { path: path.clone(), what };
        let bytes = Zeroizing::new(
            STANDARD.decode(&content.key).map_err(|_| damaged("the key in it is not base64"))?,
        );
        match content.locked_with {
            Some(locked_with) => {
                let (sealed, version) = (bytes.to_vec(), content.version);
                Ok(Opened::Locked(Locked { path, sealed, locked_with, version }))
            }
            None => {
                let key = bytes.as_slice().try_into().map_err(|_| damaged("the key in it is too short"))?;
                let lock = Lock { with: None, version: content.version };
                Ok(Opened::Unlocked(Self::of(path, DataKey::new(key), lock)))
            }
        }
    }

    fn of(path: PathBuf, key: DataKey, lock: Lock) -> Self {
        Self(Arc::new(Shared { path, key, lock: watch::Sender::new(lock) }))
    }

    pub fn key(&self) -> &DataKey {
        &self.0.key
    }

    /// Wraps the data key with that unlock key from now on; with none it lies in the clear. Durable when this returns.
    /// `version` is that of the cluster's decision: an older one than the file follows is passed over, so that a manager
    /// which reads its log again does not go through all of them. One caller at a time.
    ///
    /// # Errors
    /// The disk refused; the file is what it was.
    pub fn lock_with(&self, unlock: Option<&UnlockKey>, version: u64) -> Result<(), KeyError> {
        let wanted = Lock { with: unlock.map(UnlockKey::id), version };
        let current = self.0.lock.borrow().clone();
        if version < current.version || wanted == current {
            return Ok(());
        }
        self.write(unlock, wanted)
    }

    /// Resolves once the file follows that decision of the cluster, or a newer one.
    pub async fn follows(&self, version: u64) {
        let mut lock = self.0.lock.subscribe();
        let _ = lock.wait_for(|lock| lock.version >= version).await;
    }

    fn write(&self, unlock: Option<&UnlockKey>, lock: Lock) -> Result<(), KeyError> {
        let key = self.0.key.bytes();
        let bytes = Zeroizing::new(match unlock {
            Some(unlock) => unlock.seal(CONTEXT, key),
            None => key.to_vec(),
        });
        let mut content = Content {
            format: FORMAT,
            key: STANDARD.encode(&*bytes),
            locked_with: lock.with.clone(),
            version: lock.version,
            crc32: 0,
        };
        content.crc32 = content.checksum();
        let text = Zeroizing::new(serde_json::to_vec_pretty(&content).expect("plain data always encodes"));
        replace(&self.0.path, &text).map_err(|source| io_error("write", &self.0.path, source))?;
        self.0.lock.send_replace(lock);
        Ok(())
    }

    /// Stands in for a private key's PEM text on disk.
    pub fn wrap_private_key(&self, pem: &str) -> String {
        STANDARD.encode(self.0.key.seal(PRIVATE_KEY_CONTEXT, pem.as_bytes()))
    }

    /// `None`: it was wrapped with another data key, or is damaged.
    pub fn unwrap_private_key(&self, wrapped: &str) -> Option<String> {
        let sealed = STANDARD.decode(wrapped).ok()?;
        String::from_utf8(self.0.key.open(PRIVATE_KEY_CONTEXT, &sealed)?).ok()
    }
}

impl Locked {
    /// # Errors
    /// It is another key.
    pub fn unlock(&self, unlock: &UnlockKey) -> Result<Keyring, KeyError> {
        let wrong = || KeyError::WrongKey { locked_with: self.locked_with.clone(), given: unlock.id() };
        let bytes = Zeroizing::new(unlock.open(CONTEXT, &self.sealed).ok_or_else(wrong)?);
        let key = bytes.as_slice().try_into().map_err(|_| wrong())?;
        let lock = Lock { with: Some(self.locked_with.clone()), version: self.version };
        Ok(Keyring::of(self.path.clone(), DataKey::new(key), lock))
    }
}

impl Content {
    fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.format.to_be_bytes());
        hasher.update(&self.version.to_be_bytes());
        hasher.update(self.key.as_bytes());
        hasher.update(self.locked_with.as_deref().unwrap_or_default().as_bytes());
        hasher.finalize()
    }
}

fn read(path: &Path) -> Result<Content, KeyError> {
    let mut text = Zeroizing::new(Vec::new());
    match File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyError::Gone { path: path.to_owned() });
        }
        Err(source) => return Err(io_error("read", path, source)),
        Ok(_) => {}
    }
    let damaged = |what| KeyError::Damaged { path: path.to_owned(), what };
    let content: Content =
        serde_json::from_slice(&text).map_err(|_| damaged("it is not what was written"))?;
    if content.format != FORMAT {
        return Err(damaged("it is of another version of swarmd"));
    }
    if content.checksum() != content.crc32 {
        return Err(damaged("it does not match its checksum"));
    }
    Ok(content)
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Newly made with its mode: never readable by others, not even for a moment.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> KeyError {
    KeyError::Io { action, path: path.to_owned(), source }
}
