//! The node's directory: what it remembers of its membership.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use swarm_manager::keys::{Keyring, Opened};
use swarm_model::NodeRole;
use swarm_pki::{Credentials, NodeIdentity};

use crate::config::Config;

/// What is remembered beside the credentials. Its file is written last and removed first: it is the membership.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Where other nodes reach this one's manager.
    pub advertise: SocketAddrV4,
    /// Underlay address of the data path.
    pub data_address: Ipv4Addr,
    /// Managers to begin with; the agent keeps a newer list of its own.
    pub managers: Vec<String>,
    /// Of a manager that was not the cluster's first.
    #[serde(default)]
    pub seat: Option<Seat>,
    /// When the managers removed the node, microseconds since 1970. It is in no cluster then, but for what it kept.
    #[serde(default)]
    pub removed_at: Option<u64>,
}

/// A manager's place among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    pub raft_id: u64,
    /// Whether it has begun: from then on its log is needed to go on.
    pub joined: bool,
}

/// The node's directory.
pub struct Place(PathBuf);

impl Place {
    pub fn new(config: &Config) -> Self {
        Self(config.data_dir.clone())
    }

    pub fn make(&self) -> anyhow::Result<()> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.with_context(|| format!("cannot make {}", self.0.display()))
    }

    pub fn credentials(&self) -> PathBuf {
        self.0.join("node.pem")
    }

    fn record_file(&self) -> PathBuf {
        self.0.join("node.json")
    }

    pub fn manager(&self) -> PathBuf {
        self.0.join("manager")
    }

    pub(super) fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }

    /// Beside the agent's directory, which goes with the membership.
    pub(super) fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// `None`: in no cluster.
    pub fn record(&self) -> anyhow::Result<Option<Record>> {
        let path = self.record_file();
        match std::fs::read(&path) {
            Ok(bytes) => {
                let record = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} is damaged", path.display()))?;
                Ok(Some(record))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(super) fn remember(
        &self,
        record: &Record,
        credentials: &Credentials,
        keyring: Option<&Keyring>,
    ) -> anyhow::Result<()> {
        self.save(credentials, keyring)?;
        self.note(record)
    }

    /// A manager's private key is wrapped with its data key.
    pub(super) fn save(&self, credentials: &Credentials, keyring: Option<&Keyring>) -> anyhow::Result<()> {
        let path = self.credentials();
        match keyring {
            Some(keyring) => credentials.save_wrapped(&path, |pem| keyring.wrap_private_key(pem))?,
            None => credentials.save(&path)?,
        }
        Ok(())
    }

    /// What proves the node; with the keyring, where it is a manager's.
    pub fn load_credentials(&self, keyring: Option<&Keyring>) -> anyhow::Result<Credentials> {
        let path = self.credentials();
        let unwrap = |wrapped: &str| keyring.and_then(|keyring| keyring.unwrap_private_key(wrapped));
        Credentials::load_wrapped(&path, unwrap)?.with_context(|| format!("{} is missing", path.display()))
    }

    /// Who the node is, locked or not.
    pub fn identity(&self) -> anyhow::Result<NodeIdentity> {
        let path = self.credentials();
        Credentials::identity_in(&path)?.with_context(|| format!("{} is missing", path.display()))
    }

    pub fn open_keyring(&self) -> anyhow::Result<Opened> {
        Ok(Keyring::open(&self.manager())?)
    }

    /// For a manager that begins, with nothing of an earlier one.
    pub(super) fn new_keyring(&self, role: NodeRole) -> anyhow::Result<Option<Keyring>> {
        Ok(match role {
            NodeRole::Manager => Some(Keyring::create(&self.manager())?),
            NodeRole::Worker => None,
        })
    }

    pub fn note(&self, record: &Record) -> anyhow::Result<()> {
        let (path, new) = (self.record_file(), self.0.join("node.json.new"));
        let written = || {
            std::fs::write(&new, serde_json::to_vec_pretty(record)?)?;
            std::fs::File::open(&new)?.sync_all()?;
            std::fs::rename(&new, &path)?;
            std::fs::File::open(&self.0)?.sync_all()
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets the membership, the record first. Volumes stay: they are the operator's.
    pub fn forget(&self) -> anyhow::Result<()> {
        for path in [self.record_file(), self.credentials()] {
            absent(std::fs::remove_file(&path))
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        self.forget_manager()?;
        let path = self.agent();
        absent(std::fs::remove_dir_all(&path)).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// What a manager kept is of no use to anybody once it was taken out.
    pub(super) fn forget_manager(&self) -> anyhow::Result<()> {
        let path = self.manager();
        absent(std::fs::remove_dir_all(&path)).with_context(|| format!("cannot remove {}", path.display()))
    }
}

fn absent(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
