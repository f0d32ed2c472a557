//! `service create` and `run`: a spec from nothing.

use clap::Args;
use swarm_proto::v1;

use super::task::TaskFlags;
use crate::parse;

#[derive(Debug, Args)]
pub struct CreateFlags {
    /// Name of the service [default: made from the image's]
    #[arg(long)]
    pub name: Option<String>,
    /// Service mode; this version knows replicated
    #[arg(long, default_value = "replicated", value_parser = ["replicated"])]
    mode: String,
    /// Publish a port: 8080:80, 8080:80/udp, or published=8080,target=80,mode=host
    #[arg(short, long, value_parser = PortList, value_name = "PORT")]
    publish: Vec<Vec<v1::PortSpec>>,
    /// Environment variable
    #[arg(short, long, value_parser = parse::env, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// File of environment variables
    #[arg(long, value_parser = EnvFile, value_name = "FILE")]
    env_file: Vec<Vec<String>>,
    /// Label of the service
    #[arg(short, long, value_parser = parse::label, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
    /// Label of its containers
    #[arg(long, value_parser = parse::label, value_name = "KEY=VALUE")]
    container_label: Vec<(String, String)>,
    /// Where tasks may run: node.labels.ssd==true
    #[arg(long, value_name = "KEY==VALUE")]
    constraint: Vec<String>,
    /// What tasks spread over: spread=node.labels.zone
    #[arg(long, value_name = "spread=KEY")]
    placement_pref: Vec<String>,
    /// Mount: type=bind|volume|tmpfs,source=…,target=…,readonly
    #[arg(long, value_parser = parse::mount, value_name = "MOUNT")]
    mount: Vec<v1::Mount>,
    /// Entry of /etc/hosts
    #[arg(long = "add-host", visible_alias = "host-entry", value_parser = parse::host, value_name = "NAME:ADDRESS")]
    extra_hosts: Vec<v1::HostEntry>,
    /// Supplementary group
    #[arg(long)]
    group: Vec<String>,
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    #[arg(long, value_parser = parse::key_value, value_name = "KEY=VALUE")]
    sysctl: Vec<(String, String)>,
    #[arg(long, value_parser = parse::ulimit, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<v1::Ulimit>,
    #[command(flatten)]
    pub task: TaskFlags,
    /// Image: NAME[:TAG|@DIGEST]
    pub image: String,
    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

impl CreateFlags {
    pub fn spec(&self) -> v1::ServiceSpec {
        let container = v1::ContainerSpec {
            image: Some(v1::ImageRef {
                name: self.image.clone(),
                no_resolve: self.task.no_resolve_image,
                ..Default::default()
            }),
            args: self.args.clone(),
            env: self.env_file.iter().flatten().chain(&self.env).cloned().collect(),
            groups: self.group.clone(),
            hosts: self.extra_hosts.clone(),
            labels: self.container_label.iter().cloned().collect(),
            mounts: self.mount.clone(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            sysctls: self.sysctl.iter().cloned().collect(),
            ulimits: self.ulimit.clone(),
            ..Default::default()
        };
        let placement = v1::Placement {
            constraints: self.constraint.clone(),
            preferences: self.placement_pref.clone(),
            ..Default::default()
        };
        let task =
            v1::TaskSpec { container: Some(container), placement: Some(placement), ..Default::default() };
        let mut spec = v1::ServiceSpec {
            name: self.name.clone().unwrap_or_default(),
            labels: self.label.iter().cloned().collect(),
            task: Some(task),
            ports: self.publish.iter().flatten().copied().collect(),
            ..Default::default()
        };
        self.task.apply(&mut spec);
        spec
    }
}

/// One `--publish` gives several ports where it names a range.
#[derive(Debug, Clone)]
pub struct PortList;

impl clap::builder::TypedValueParser for PortList {
    type Value = Vec<v1::PortSpec>;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let parser: fn(&str) -> Result<Self::Value, String> = parse::ports;
        clap::builder::TypedValueParser::parse_ref(&parser, command, arg, value)
    }
}

#[derive(Debug, Clone)]
struct EnvFile;

impl clap::builder::TypedValueParser for EnvFile {
    type Value = Vec<String>;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let parser: fn(&str) -> Result<Self::Value, String> = parse::env_file;
        clap::builder::TypedValueParser::parse_ref(&parser, command, arg, value)
    }
}
