//! The node's configuration: a TOML file, and flags over it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cli::NodeArgs;

const DEFAULT_FILE: &str = "/etc/swarm/swarmd.toml";
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Where managers listen.
pub const DEFAULT_PORT: u16 = 2377;

/// As the file has it; an unknown key is an error, so that a typing mistake is not silent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileConfig {
    data_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    listen: Option<SocketAddrV4>,
    hostname: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    cgroup_parent: Option<String>,
    #[serde(default)]
    insecure_registries: Vec<String>,
}

/// What the daemon runs with.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    pub socket: PathBuf,
    pub listen: SocketAddrV4,
    pub hostname: String,
    pub labels: BTreeMap<String, String>,
    pub cgroup_parent: String,
    pub insecure_registries: Vec<String>,
    pub ephemeral: bool,
}

impl Config {
    /// Reads the file and lays the flags over it.
    ///
    /// # Errors
    /// A file that was named and cannot be read, or a value that makes no sense; the text names it.
    pub fn load(args: NodeArgs) -> anyhow::Result<Self> {
        let file = read(args.config.as_deref())?;
        let mut labels = file.labels;
        for label in &args.labels {
            let (key, value) =
                label.split_once('=').with_context(|| format!("--label {label:?} is not KEY=VALUE"))?;
            labels.insert(key.to_owned(), value.to_owned());
        }
        let hostname = match args.hostname.or(file.hostname) {
            Some(hostname) => hostname,
            None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        if hostname.is_empty() || hostname.len() > 253 {
            bail!("the host name {hostname:?} is not usable; set one with --hostname");
        }
        let cgroup_parent = args.cgroup_parent.or(file.cgroup_parent).unwrap_or_else(|| "swarm".to_owned());
        if cgroup_parent.is_empty()
            || cgroup_parent.split('/').any(|part| part.is_empty() || part.starts_with('.'))
        {
            bail!("--cgroup-parent {cgroup_parent:?} is not a relative path of cgroup names");
        }
        Ok(Self {
            data_dir: args.data_dir.or(file.data_dir).unwrap_or_else(|| "/var/lib/swarm".into()),
            socket: args.socket.or(file.socket).unwrap_or_else(|| "/run/swarm/swarmd.sock".into()),
            listen: args
                .listen
                .or(file.listen)
                .unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
            hostname,
            labels,
            cgroup_parent,
            insecure_registries: [file.insecure_registries, args.insecure_registries].concat(),
            ephemeral: args.ephemeral,
        })
    }
}

fn read(named: Option<&Path>) -> anyhow::Result<FileConfig> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let metadata = match std::fs::metadata(path) {
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(FileConfig::default());
        }
        metadata => metadata.with_context(|| format!("cannot read {}", path.display()))?,
    };
    if metadata.len() > MAX_FILE_BYTES {
        bail!("{} is larger than 1 MiB", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_mistakes_are_named() {
        let directory = std::env::temp_dir().join(format!("swarmd-config-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("swarmd.toml");
        std::fs::write(&path, "hostname = 'a'\ncgroup-parent = 'x'\n[labels]\ndisk = 'ssd'\n")
            .expect("written");
        let args = NodeArgs {
            config: Some(path.clone()),
            hostname: Some("b".into()),
            labels: vec!["zone=1".into()],
            ..NodeArgs::default()
        };
        let config = Config::load(args.clone()).expect("valid");
        assert_eq!((config.hostname.as_str(), config.cgroup_parent.as_str()), ("b", "x"));
        assert_eq!(config.labels.len(), 2);
        std::fs::write(&path, "hostnam = 'a'\n").expect("written");
        let error = format!("{:#}", Config::load(args).expect_err("a mistake"));
        assert!(error.contains("hostnam"), "{error}");
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
