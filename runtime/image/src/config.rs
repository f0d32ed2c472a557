//! The image configuration: what an image says about how it wants to be run.
//!
//! It reads OCI's configuration and Docker's, which has more fields (health checks). Values are taken as they are:
//! defaults and what a service spec overrides are decided elsewhere. Labels are data, never control input.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::{Digest, Platform};

/// How an image wants to be run, and the layers that it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What it was built for.
    pub platform: Platform,
    /// The program and its first arguments; may be empty.
    pub entrypoint: Vec<String>,
    /// Arguments to the entrypoint, or the whole command where there is none.
    pub cmd: Vec<String>,
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    /// Where the process starts; empty means `/`.
    pub working_dir: String,
    /// `USER`, `UID`, `USER:GROUP` or `UID:GID`, resolved against the image's own files; empty means root.
    pub user: String,
    /// Such as `80/tcp`; documentation, not a promise.
    pub exposed_ports: Vec<String>,
    /// Paths that want a volume.
    pub volumes: Vec<String>,
    /// Free-form annotations.
    pub labels: BTreeMap<String, String>,
    /// Such as `SIGQUIT` or `3`.
    pub stop_signal: Option<String>,
    /// Docker's health check.
    pub healthcheck: Option<Healthcheck>,
    /// The digests of the uncompressed layers, bottom first.
    pub diff_ids: Vec<Digest>,
}

/// A health check as Docker's images carry it. `None` means that the image leaves the choice to the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", …]`; empty means inherit.
    pub test: Vec<String>,
    /// Between two probes.
    pub interval: Option<Duration>,
    /// For one probe.
    pub timeout: Option<Duration>,
    /// In which failures do not count.
    pub start_period: Option<Duration>,
    /// Between two probes during the start period.
    pub start_interval: Option<Duration>,
    /// Failures in a row that make the container unhealthy.
    pub retries: Option<u32>,
}

#[derive(Deserialize)]
struct WireImage {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
    #[serde(default, deserialize_with = "or_default")]
    config: WireConfig,
    rootfs: WireRootfs,
}

#[derive(Deserialize)]
struct WireRootfs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireConfig {
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
    healthcheck: Option<WireHealthcheck>,
}

/// Durations are nanoseconds, 0 means default.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireHealthcheck {
    #[serde(default, deserialize_with = "or_default")]
    test: Vec<String>,
    #[serde(default)]
    interval: u64,
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    start_period: u64,
    #[serde(default)]
    start_interval: u64,
    #[serde(default)]
    retries: u32,
}

/// Go writes absent lists and maps as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl ImageConfig {
    /// Reads a configuration document.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let wire: WireImage = serde_json::from_slice(bytes)?;
        let config = wire.config;
        let image = Self {
            platform: Platform { os: wire.os, architecture: wire.architecture, variant: wire.variant },
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            env: config.env,
            working_dir: config.working_dir,
            user: config.user,
            exposed_ports: config.exposed_ports.into_keys().collect(),
            volumes: config.volumes.into_keys().collect(),
            labels: config.labels,
            stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
            healthcheck: config.healthcheck.map(Healthcheck::from),
            diff_ids: wire.rootfs.diff_ids,
        };
        image.refuse_nul()?;
        Ok(image)
    }

    /// A NUL would cut the text where the kernel reads it, and mean something else than what was shown.
    fn refuse_nul(&self) -> Result<(), serde_json::Error> {
        let texts = [&self.entrypoint, &self.cmd, &self.env, &self.volumes];
        let all = texts.into_iter().flatten().chain([&self.working_dir, &self.user]);
        match all.into_iter().find(|text| text.contains('\0')) {
            Some(text) => {
                Err(serde::de::Error::custom(format!("{:?} contains a NUL", crate::digest::printable(text))))
            }
            None => Ok(()),
        }
    }
}

impl From<WireHealthcheck> for Healthcheck {
    fn from(wire: WireHealthcheck) -> Self {
        let duration = |nanos: u64| (nanos > 0).then(|| Duration::from_nanos(nanos));
        Self {
            test: wire.test,
            interval: duration(wire.interval),
            timeout: duration(wire.timeout),
            start_period: duration(wire.start_period),
            start_interval: duration(wire.start_interval),
            retries: (wire.retries > 0).then_some(wire.retries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF_ID: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn everything_docker_writes_is_read() {
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z","config":{{
                "User":"www","ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=b"],"Entrypoint":["/run"],"Cmd":["-x"],
                "Volumes":{{"/data":{{}}}},"WorkingDir":"/srv","Labels":{{"k":"v"}},"StopSignal":"SIGQUIT",
                "Healthcheck":{{"Test":["CMD","true"],"Interval":1000000000,"Retries":3}}}},
                "rootfs":{{"type":"layers","diff_ids":["{DIFF_ID}"]}},"history":[]}}"#
        );
        let config = ImageConfig::parse(json.as_bytes()).unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert_eq!((config.entrypoint, config.cmd), (vec!["/run".into()], vec!["-x".into()]));
        assert_eq!((config.exposed_ports, config.volumes), (vec!["80/tcp".into()], vec!["/data".into()]));
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("www", "/srv"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.timeout), (Some(Duration::from_secs(1)), None));
        assert_eq!(check.retries, Some(3));
        assert_eq!(config.diff_ids, [Digest::of(b"")]);
    }

    #[test]
    fn null_means_absent() {
        let json = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Entrypoint":null,"Labels":null,
            "Healthcheck":null,"StopSignal":""},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ImageConfig::parse(json.as_bytes()).unwrap();
        assert!(config.cmd.is_empty() && config.labels.is_empty() && config.stop_signal.is_none());
        let no_config = r#"{"architecture":"amd64","os":"linux","config":null,"rootfs":{}}"#;
        assert!(ImageConfig::parse(no_config.as_bytes()).unwrap().env.is_empty());
    }

    #[test]
    fn a_nul_or_a_malformed_digest_is_refused() {
        let with = |config: &str, diff_ids: &str| {
            let json = format!(
                r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"diff_ids":{diff_ids}}}}}"#
            );
            ImageConfig::parse(json.as_bytes())
        };
        assert!(with("{}", "[]").is_ok());
        assert!(with(r#"{"Env":["A=\u0000"]}"#, "[]").is_err());
        assert!(with(r#"{"Cmd":"not a list"}"#, "[]").is_err());
        assert!(with("{}", r#"["sha256:12"]"#).is_err());
        assert!(with(r#"{"Healthcheck":{"Interval":-1}}"#, "[]").is_err());
    }
}
