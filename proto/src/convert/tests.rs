//! Round trips, and refusals of what no honest peer sends.

use std::collections::BTreeMap;

use swarm_model as model;

use super::session::FromAgent;
use crate::v1 as wire;

fn wire_spec() -> wire::ServiceSpec {
    wire::ServiceSpec {
        name: "web".to_owned(),
        task: Some(wire::TaskSpec {
            container: Some(wire::ContainerSpec {
                image: Some(wire::ImageRef { name: "shop/web:1".to_owned(), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ports: vec![wire::PortSpec { target: 80, published: 8080, ..Default::default() }],
        ..Default::default()
    }
}

fn refusal(change: impl FnOnce(&mut wire::ServiceSpec)) -> String {
    let mut spec = wire_spec();
    change(&mut spec);
    let error = model::ServiceSpec::try_from(spec).expect_err("a bad spec");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn placement(spec: &mut wire::ServiceSpec) -> &mut wire::Placement {
    spec.task.as_mut().expect("has a task").placement.get_or_insert_default()
}

#[test]
fn absent_fields_get_swarms_defaults_and_survive_a_round_trip() {
    let spec = model::ServiceSpec::try_from(wire_spec()).expect("valid");
    assert_eq!(spec.mode, model::ServiceMode::Replicated { replicas: 1 });
    assert_eq!(spec.update, model::UpdatePolicy::default());
    assert_eq!(spec.rollback.failure_action, model::FailureAction::Pause);
    assert_eq!(spec.task.restart, model::RestartPolicy::default());
    assert_eq!(spec.task.container.stop_grace_period.as_secs(), 10);
    let back = model::ServiceSpec::try_from(wire::ServiceSpec::from(&spec)).expect("still valid");
    assert_eq!(back, spec);
}

#[test]
fn a_bad_spec_is_refused_by_name() {
    let starts = |text: String, expect: &str| assert!(text.contains(expect), "{text:?} lacks {expect:?}");
    starts(refusal(|spec| spec.name = "-x".to_owned()), "\"-x\" is not valid");
    starts(refusal(|spec| spec.task = None), "no task");
    starts(
        refusal(|spec| placement(spec).constraints.push("node.rol==x".to_owned())),
        "unknown key \"node.rol\"",
    );
    starts(refusal(|spec| spec.ports.push(spec.ports[0])), "8080/tcp is published twice");
    starts(refusal(|spec| spec.ports[0].target = 70_000), "target port");
    starts(
        refusal(|spec| spec.labels = (0..2_000).map(|i| (i.to_string(), String::new())).collect()),
        "labels has 2000",
    );
    starts(
        refusal(|spec| {
            spec.update = Some(wire::UpdatePolicy { max_failure_ratio: f64::NAN, ..Default::default() })
        }),
        "ratio",
    );
}

#[test]
fn assignments_share_specs_on_the_wire() {
    let spec = std::sync::Arc::new(model::ServiceSpec::try_from(wire_spec()).expect("valid").task);
    let assignment = |number| model::Assignment {
        task: model::TaskId::from_u128(number),
        service: model::ServiceId::from_u128(1),
        service_name: "web".to_owned(),
        service_labels: BTreeMap::new(),
        slot: 1,
        desired: model::DesiredState::Running,
        address: "10.192.4.11".parse().expect("an address"),
        spec: spec.clone(),
        ports: Vec::new(),
    };
    let delta = model::AssignmentsDelta {
        base: None,
        version: model::TableVersion { epoch: 2, number: 7 },
        upsert: vec![assignment(1), assignment(2)],
        remove: vec![model::TaskId::from_u128(3)],
    };
    let sent = wire::AssignmentsDelta::from(&delta);
    assert_eq!(sent.specs.len(), 1);
    assert_eq!(model::AssignmentsDelta::try_from(sent).expect("valid"), delta);
}

#[test]
fn a_mesh_difference_round_trips() {
    let delta = model::MeshDelta {
        base: Some(model::TableVersion { epoch: 1, number: 1 }),
        version: model::TableVersion { epoch: 1, number: 2 },
        nodes: [(1, Some("10.0.0.1".parse().expect("an address"))), (2, None)].into(),
        ports: [
            ((model::Protocol::Tcp, 80), Some(vec!["10.192.4.11:80".parse().expect("a socket address")])),
            ((model::Protocol::Udp, 53), None),
            ((model::Protocol::Tcp, 81), Some(Vec::new())),
        ]
        .into(),
    };
    let message = model::ManagerMessage::Mesh(delta);
    assert_eq!(
        model::ManagerMessage::try_from(wire::ManagerMessage::from(&message)).expect("valid"),
        message
    );
}

#[test]
fn an_agents_nonsense_is_an_error() {
    let statuses = wire::agent_message::Statuses {
        statuses: vec![wire::ReportedStatus {
            task_id: "nope".to_owned(),
            status: Some(wire::TaskStatus::default()),
        }],
    };
    let message = wire::AgentMessage { message: Some(wire::agent_message::Message::Statuses(statuses)) };
    assert!(FromAgent::try_from(message).is_err());
    assert!(FromAgent::try_from(wire::AgentMessage::default()).is_err());
}
