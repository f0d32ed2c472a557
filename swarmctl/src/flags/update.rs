//! `service update`: changes to a spec that exists.

use clap::Args;
use swarm_proto::v1;

use super::create::PortList;
use super::task::{TaskFlags, words};
use crate::parse;

#[derive(Debug, Args)]
pub struct UpdateFlags {
    /// New image
    #[arg(long)]
    image: Option<String>,
    /// New arguments
    #[arg(long, value_name = "COMMAND")]
    args: Option<String>,
    /// Replace all tasks even if nothing changed
    #[arg(long)]
    force: bool,
    /// Return to the previous revision
    #[arg(long)]
    pub rollback: bool,
    #[arg(long, value_parser = PortList, value_name = "PORT")]
    publish_add: Vec<Vec<v1::PortSpec>>,
    /// By target port, as 80 or 80/udp, or by published:target
    #[arg(long, value_name = "PORT")]
    publish_rm: Vec<String>,
    #[arg(long, value_parser = parse::env, value_name = "KEY=VALUE")]
    env_add: Vec<String>,
    #[arg(long, value_name = "KEY")]
    env_rm: Vec<String>,
    #[arg(long, value_parser = parse::label, value_name = "KEY=VALUE")]
    label_add: Vec<(String, String)>,
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    #[arg(long, value_parser = parse::label, value_name = "KEY=VALUE")]
    container_label_add: Vec<(String, String)>,
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    #[arg(long, value_name = "KEY==VALUE")]
    constraint_add: Vec<String>,
    #[arg(long, value_name = "KEY==VALUE")]
    constraint_rm: Vec<String>,
    #[arg(long, value_name = "spread=KEY")]
    placement_pref_add: Vec<String>,
    #[arg(long, value_name = "spread=KEY")]
    placement_pref_rm: Vec<String>,
    #[arg(long, value_parser = parse::mount, value_name = "MOUNT")]
    mount_add: Vec<v1::Mount>,
    /// By target path
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    #[arg(long, value_parser = parse::host, value_name = "NAME:ADDRESS")]
    host_add: Vec<v1::HostEntry>,
    #[arg(long, value_name = "NAME")]
    host_rm: Vec<String>,
    #[arg(long)]
    group_add: Vec<String>,
    #[arg(long)]
    group_rm: Vec<String>,
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    #[arg(long, value_parser = parse::key_value, value_name = "KEY=VALUE")]
    sysctl_add: Vec<(String, String)>,
    #[arg(long, value_name = "KEY")]
    sysctl_rm: Vec<String>,
    #[arg(long, value_parser = parse::ulimit, value_name = "NAME=SOFT[:HARD]")]
    ulimit_add: Vec<v1::Ulimit>,
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
    #[command(flatten)]
    pub task: TaskFlags,
}

impl UpdateFlags {
    pub fn apply(&self, spec: &mut v1::ServiceSpec) {
        self.task.apply(spec);
        spec.labels.retain(|key, _| !self.label_rm.contains(key));
        spec.labels.extend(self.label_add.iter().cloned());
        spec.ports.retain(|port| !self.publish_rm.iter().any(|wanted| names_port(wanted, port)));
        for port in self.publish_add.iter().flatten() {
            spec.ports.retain(|old| (old.target, old.protocol) != (port.target, port.protocol));
            spec.ports.push(*port);
        }
        let task = spec.task.get_or_insert_default();
        task.force_update += u64::from(self.force);
        let placement = task.placement.get_or_insert_default();
        edit(&mut placement.constraints, &self.constraint_rm, &self.constraint_add, |a, b| {
            squeezed(a) == squeezed(b)
        });
        edit(&mut placement.preferences, &self.placement_pref_rm, &self.placement_pref_add, |a, b| a == b);
        self.apply_container(task.container.get_or_insert_default());
    }

    fn apply_container(&self, container: &mut v1::ContainerSpec) {
        if let Some(image) = &self.image {
            let no_resolve = self.task.no_resolve_image;
            container.image = Some(v1::ImageRef { name: image.clone(), no_resolve, ..Default::default() });
        }
        if let Some(args) = &self.args {
            container.args = words(args);
        }
        container.env.retain(|entry| !self.env_rm.iter().any(|key| name_of(entry) == key));
        for entry in &self.env_add {
            container.env.retain(|old| name_of(old) != name_of(entry));
            container.env.push(entry.clone());
        }
        container.labels.retain(|key, _| !self.container_label_rm.contains(key));
        container.labels.extend(self.container_label_add.iter().cloned());
        container.sysctls.retain(|key, _| !self.sysctl_rm.contains(key));
        container.sysctls.extend(self.sysctl_add.iter().cloned());
        container.mounts.retain(|mount| !self.mount_rm.contains(&mount.target));
        container.mounts.retain(|mount| !self.mount_add.iter().any(|new| new.target == mount.target));
        container.mounts.extend(self.mount_add.iter().cloned());
        container.hosts.retain(|host| !self.host_rm.contains(&host.name));
        container.hosts.extend(self.host_add.iter().cloned());
        container.ulimits.retain(|limit| !self.ulimit_rm.contains(&limit.name));
        container.ulimits.retain(|limit| !self.ulimit_add.iter().any(|new| new.name == limit.name));
        container.ulimits.extend(self.ulimit_add.iter().cloned());
        edit(&mut container.groups, &self.group_rm, &self.group_add, |a, b| a == b);
        edit(&mut container.cap_add, &self.cap_drop, &self.cap_add, |a, b| a.eq_ignore_ascii_case(b));
        edit(&mut container.cap_drop, &self.cap_add, &self.cap_drop, |a, b| a.eq_ignore_ascii_case(b));
    }
}

fn edit(list: &mut Vec<String>, remove: &[String], add: &[String], same: impl Fn(&str, &str) -> bool) {
    list.retain(|entry| !remove.iter().any(|gone| same(entry, gone)));
    for entry in add {
        if !list.iter().any(|old| same(old, entry)) {
            list.push(entry.clone());
        }
    }
}

fn name_of(entry: &str) -> &str {
    entry.split('=').next().unwrap_or(entry)
}

fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// `80`, `80/udp` (target), or `8080:80`.
fn names_port(wanted: &str, port: &v1::PortSpec) -> bool {
    let (numbers, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let shown = if port.protocol == v1::port_spec::Protocol::Udp as i32 { "udp" } else { "tcp" };
    let target = numbers.rsplit(':').next().unwrap_or(numbers);
    let published = numbers.split_once(':').map(|(published, _)| published);
    target == port.target.to_string()
        && protocol == shown
        && published.is_none_or(|text| text == port.published.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        flags: UpdateFlags,
    }

    fn updated(arguments: &[&str]) -> v1::ServiceSpec {
        let mut spec = v1::ServiceSpec {
            ports: crate::parse::ports("8080:80").expect("a port"),
            task: Some(v1::TaskSpec {
                container: Some(v1::ContainerSpec {
                    env: vec!["A=1".into(), "B=2".into()],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        Command::parse_from(std::iter::once(&"x").chain(arguments)).flags.apply(&mut spec);
        spec
    }

    #[test]
    fn lists_are_edited_by_key_and_the_rest_stays() {
        let spec =
            updated(&["--env-add", "A=3", "--env-rm", "B", "--publish-rm", "80", "--publish-add", "9090:90"]);
        assert_eq!(spec.task.expect("a task").container.expect("a container").env, ["A=3"]);
        assert_eq!(spec.ports.iter().map(|port| port.published).collect::<Vec<_>>(), [9090]);
        let untouched = updated(&[]);
        assert_eq!(untouched.ports.len(), 1);
        assert_eq!(updated(&["--force"]).task.map(|task| task.force_update), Some(1));
    }
}
