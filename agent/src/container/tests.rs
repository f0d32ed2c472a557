use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use swarm_agent_core::fake::assignment;
use swarm_image::Platform;
use swarm_model::{DesiredState, Mount, MountKind, TaskId};

use super::*;

fn image() -> ImageConfig {
    ImageConfig {
        platform: Platform::current(),
        entrypoint: vec!["/entry".to_owned()],
        cmd: vec!["serve".to_owned()],
        env: vec!["A=image".to_owned(), "B=image".to_owned()],
        working_dir: "/srv".to_owned(),
        user: "www".to_owned(),
        exposed_ports: Vec::new(),
        volumes: Vec::new(),
        labels: BTreeMap::new(),
        stop_signal: Some("SIGQUIT".to_owned()),
        healthcheck: None,
        diff_ids: Vec::new(),
    }
}

fn node(volumes: &std::path::Path) -> NodeFacts {
    let engine =
        crate::describe(Some("host-1".to_owned()), BTreeMap::new(), Ipv4Addr::LOCALHOST, String::new());
    NodeFacts { node: NodeId::from_u128(5), engine, volumes: volumes.to_owned(), resolver: String::new() }
}

fn assigned(change: impl FnOnce(&mut ContainerSpec)) -> Assignment {
    let mut assignment = assignment(TaskId::from_u128(7), DesiredState::Running);
    change(&mut Arc::make_mut(&mut assignment.spec).container);
    assignment
}

fn build(change: impl FnOnce(&mut ContainerSpec)) -> Result<swarm_runtime::ContainerSpec, ContainerError> {
    let volumes = tempfile::tempdir().unwrap();
    container_spec(&assigned(change), &image(), Vec::new(), &node(volumes.path()))
}

fn args(change: impl FnOnce(&mut ContainerSpec)) -> String {
    build(change).unwrap().args.join(" ")
}

#[test]
fn entrypoint_and_arguments_merge_as_dockers() {
    let list = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(args(|_| {}), "/entry serve");
    assert_eq!(args(|spec| spec.args = list("other x")), "/entry other x");
    assert_eq!(args(|spec| spec.entrypoint = list("/own -v")), "/own -v");
    let both = |spec: &mut ContainerSpec| {
        spec.entrypoint = list("/own");
        spec.args = list("y");
    };
    assert_eq!(args(both), "/own y");
}

#[test]
fn an_image_without_a_command_is_refused_by_name() {
    let nothing = ImageConfig { entrypoint: Vec::new(), cmd: Vec::new(), ..image() };
    let volumes = tempfile::tempdir().unwrap();
    let error = container_spec(&assigned(|_| {}), &nothing, Vec::new(), &node(volumes.path())).unwrap_err();
    assert_eq!(error.to_string(), "image shop/web:1 has no command: give one with the service");
}

#[test]
fn the_specs_environment_wins_and_placeholders_are_filled() {
    let spec = build(|spec| {
        spec.env =
            vec!["B=spec".to_owned(), "WHO={{.Service.Name}}.{{ .Task.Slot }}@{{.Node.Hostname}}".to_owned()];
        spec.hostname = Some("{{.Task.Name}}".to_owned());
    })
    .unwrap();
    let name = format!("web.1.{}", TaskId::from_u128(7));
    assert_eq!(spec.env, ["A=image", &format!("HOSTNAME={name}"), "B=spec", "WHO=web.1@host-1"]);
    assert_eq!(spec.hostname, name);
}

#[test]
fn an_unknown_placeholder_names_itself() {
    let error = build(|spec| spec.env = vec!["X={{.Nope}}".to_owned()]).unwrap_err().to_string();
    assert!(error.starts_with("env: {{.Nope}} is not known; there are .Service.ID"), "{error}");
    let error = build(|spec| spec.env = vec!["X={{.Task".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("without }}"), "{error}");
}

#[test]
fn what_the_spec_leaves_open_the_image_says() {
    let spec = build(|_| {}).unwrap();
    assert_eq!((spec.cwd.as_str(), spec.user.as_str()), ("/srv", "www"));
    assert_eq!(spec.hostname, "000000000000");
    let own = assigned(|spec| spec.stop_signal = Some("INT".to_owned())).spec.container.clone();
    assert_eq!(stop_signal(&own, Some(&image())).unwrap().to_string(), "SIGINT");
    let open = assigned(|_| {}).spec.container.clone();
    assert_eq!(stop_signal(&open, Some(&image())).unwrap().to_string(), "SIGQUIT");
    assert_eq!(stop_signal(&open, None).unwrap().to_string(), "SIGTERM");
}

#[test]
fn volumes_are_made_per_name_and_missing_binds_are_refused() {
    let volumes = tempfile::tempdir().unwrap();
    let mount = |kind| Mount { kind, target: "/data".to_owned(), read_only: false };
    let named = mount(MountKind::Volume { name: "data-{{.Task.Slot}}".to_owned() });
    let assignment = assigned(|spec| spec.mounts = vec![named]);
    container_spec(&assignment, &image(), Vec::new(), &node(volumes.path())).unwrap();
    assert!(volumes.path().join("data-1").is_dir());
    let missing = mount(MountKind::Bind { source: "/no/such/place".to_owned() });
    let error = build(|spec| spec.mounts = vec![missing]).unwrap_err().to_string();
    assert_eq!(error, "mount on /data: /no/such/place does not exist on this node");
}
