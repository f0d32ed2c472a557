//! Checks of a whole spec that no single field can make. Called once, at the door.

use std::collections::BTreeSet;

use crate::{
    ContainerSpec, PortMode, PortSpec, Resources, ServiceMode, ServiceSpec, SpecError, TaskSpec,
    UpdatePolicy, service_name,
};

/// Entries that any list of a spec may have.
const MAX_ENTRIES: usize = 1_000;
/// Bytes that any single string of a spec may have; environment variables carry the longest ones.
const MAX_STRING_BYTES: usize = 128 << 10;
/// Replicas that one service may ask for.
const MAX_REPLICAS: u32 = 1_000_000;

impl ServiceSpec {
    /// Checks everything that needs no store and no registry.
    ///
    /// # Errors
    /// The first thing that is wrong, with the field's name.
    pub fn validate(&self) -> Result<(), SpecError> {
        service_name(&self.name).map_err(SpecError::Name)?;
        let ServiceMode::Replicated { replicas } = self.mode;
        if replicas > MAX_REPLICAS {
            return Err(invalid("replicas", format!("{replicas} is more than {MAX_REPLICAS}")));
        }
        strings("labels", self.labels.iter().flat_map(|(key, value)| [key, value]))?;
        self.check_ports()?;
        check_update("update", &self.update)?;
        check_update("rollback", &self.rollback)?;
        self.task.validate()
    }

    fn check_ports(&self) -> Result<(), SpecError> {
        count("publish", self.ports.len())?;
        let mut seen = BTreeSet::new();
        for port in &self.ports {
            if port.target == 0 {
                return Err(invalid("publish", "target port 0 does not exist".to_owned()));
            }
            match (port.mode, port.published) {
                (PortMode::Host, None) => {
                    return Err(invalid(
                        "publish",
                        format!("port {} with mode=host needs a published port", port.target),
                    ));
                }
                (PortMode::Ingress | PortMode::Host, Some(published))
                    if !seen.insert((port.protocol, published)) =>
                {
                    return Err(invalid(
                        "publish",
                        format!("port {published}/{} is published twice", port.protocol),
                    ));
                }
                (PortMode::Ingress | PortMode::Host, Some(published))
                    if PortSpec::OF_THE_CLUSTER.contains(&(port.protocol, published)) =>
                {
                    return Err(invalid(
                        "publish",
                        format!(
                            "port {published}/{} is the cluster's own: the nodes would lose each other",
                            port.protocol
                        ),
                    ));
                }
                (PortMode::Ingress | PortMode::Host, _) => {}
            }
        }
        Ok(())
    }
}

impl TaskSpec {
    fn validate(&self) -> Result<(), SpecError> {
        check_amounts(
            "reserve-cpu",
            "reserve-memory",
            self.reservations.cpu_nanos,
            self.reservations.memory_bytes,
        )?;
        let limits = self.limits;
        check_amounts(
            "limit-cpu",
            "limit-memory",
            limits.cpu_nanos.unwrap_or(0),
            limits.memory_bytes.unwrap_or(0),
        )?;
        if limits.memory_bytes.is_some_and(|limit| limit < self.reservations.memory_bytes) {
            return Err(invalid("limit-memory", "is lower than reserve-memory".to_owned()));
        }
        if limits.cpu_nanos.is_some_and(|limit| limit < self.reservations.cpu_nanos) {
            return Err(invalid("limit-cpu", "is lower than reserve-cpu".to_owned()));
        }
        count("constraint", self.placement.constraints.len())?;
        count("placement-pref", self.placement.preferences.len())?;
        self.container.validate()
    }
}

impl ContainerSpec {
    fn validate(&self) -> Result<(), SpecError> {
        if self.image.name.is_empty() {
            return Err(SpecError::Missing { field: "image" });
        }
        strings("image", [&self.image.name])?;
        strings("entrypoint", &self.entrypoint)?;
        strings("args", &self.args)?;
        strings("env", &self.env)?;
        strings("group", &self.groups)?;
        strings("cap-add", &self.cap_add)?;
        strings("cap-drop", &self.cap_drop)?;
        strings("container-label", self.labels.iter().flat_map(|(key, value)| [key, value]))?;
        strings("sysctl", self.sysctls.iter().flat_map(|(key, value)| [key, value]))?;
        strings("host", self.hosts.iter().flat_map(|(name, address)| [name, address]))?;
        strings("ulimit", self.ulimits.iter().map(|ulimit| &ulimit.name))?;
        strings("workdir", &self.workdir)?;
        strings("user", &self.user)?;
        strings("hostname", &self.hostname)?;
        if let Some(bad) = self.env.iter().find(|entry| entry.is_empty() || entry.starts_with('=')) {
            return Err(invalid("env", format!("{bad:?} is not of the form KEY=VALUE")));
        }
        self.check_mounts()
    }

    fn check_mounts(&self) -> Result<(), SpecError> {
        count("mount", self.mounts.len())?;
        let mut seen = BTreeSet::new();
        for mount in &self.mounts {
            if !mount.target.starts_with('/') {
                return Err(invalid("mount", format!("target {:?} is not an absolute path", mount.target)));
            }
            if !seen.insert(mount.target.trim_end_matches('/')) {
                return Err(invalid("mount", format!("target {} is mounted twice", mount.target)));
            }
            match &mount.kind {
                crate::MountKind::Bind { source } if !source.starts_with('/') => {
                    return Err(invalid("mount", format!("bind source {source:?} is not an absolute path")));
                }
                crate::MountKind::Volume { name } => service_name(name).map_err(SpecError::Name)?,
                crate::MountKind::Bind { .. } | crate::MountKind::Tmpfs { .. } => {}
            }
        }
        Ok(())
    }
}

fn check_update(field: &'static str, policy: &UpdatePolicy) -> Result<(), SpecError> {
    if policy.max_failure_ratio_millionths > 1_000_000 {
        return Err(invalid(field, "the failure ratio is a number from 0 to 1".to_owned()));
    }
    if field == "rollback" && policy.failure_action == crate::FailureAction::Rollback {
        return Err(invalid(field, "the failure action of a rollback is pause or continue".to_owned()));
    }
    Ok(())
}

fn check_amounts(
    cpu_field: &'static str,
    memory_field: &'static str,
    cpu: u64,
    memory: u64,
) -> Result<(), SpecError> {
    if cpu != 0 && cpu < Resources::MIN_CPU_NANOS {
        return Err(invalid(cpu_field, "is less than 0.001 of a core".to_owned()));
    }
    if memory != 0 && memory < Resources::MIN_MEMORY_BYTES {
        return Err(invalid(memory_field, "is less than 4 MiB".to_owned()));
    }
    Ok(())
}

fn strings<'a>(field: &'static str, values: impl IntoIterator<Item = &'a String>) -> Result<(), SpecError> {
    let mut entries = 0;
    for value in values {
        entries += 1;
        if value.len() > MAX_STRING_BYTES {
            return Err(SpecError::TooLong { field, bytes: value.len(), limit: MAX_STRING_BYTES });
        }
        if value.contains('\0') {
            return Err(invalid(field, "has a NUL character".to_owned()));
        }
    }
    // Maps hand in keys and values.
    count(field, entries / 2)
}

fn count(field: &'static str, count: usize) -> Result<(), SpecError> {
    if count > MAX_ENTRIES { Err(SpecError::TooMany { field, count, limit: MAX_ENTRIES }) } else { Ok(()) }
}

fn invalid(field: &'static str, reason: String) -> SpecError {
    SpecError::Invalid { field, reason }
}
