//! Services from the operator's call to the agent's report, and back to who watches.

use swarm_proto::v1;
use swarm_proto::v1::watch_event::Event;
use tonic::Code;

use crate::support::{Cluster, SOON, create, eventually, spec};

#[tokio::test]
async fn a_service_reaches_an_agent_and_its_report_reaches_the_operator() {
    let cluster = Cluster::new().await;
    let mut agent = cluster.agent("node-2").await;
    let created = cluster.services().create(create(spec("web", "shop/web:1", 1))).await.unwrap();
    let service = created.into_inner().service.unwrap();
    assert_eq!((service.running_tasks, service.desired_tasks), (0, 1));
    let image = service.spec.unwrap().task.unwrap().container.unwrap().image.unwrap();
    assert_eq!(image.name, "docker.io/shop/web:1");

    let watch = v1::WatchRequest { tasks: true, service_id: service.id, ..Default::default() };
    let mut events =
        v1::watch_client::WatchClient::new(cluster.operator.clone()).watch(watch).await.unwrap().into_inner();
    let assignment = agent.expect_assignment().await;
    assert_eq!((assignment.service_name.as_str(), assignment.slot), ("web", 1));
    agent.report(&assignment.task_id, v1::TaskState::Running).await;
    let running = async {
        loop {
            let event = events.message().await.unwrap().expect("the watch goes on").event;
            if let Some(Event::Task(task)) = event
                && task.status.as_ref().is_some_and(|status| status.state() == v1::TaskState::Running)
            {
                return task;
            }
        }
    };
    let task = tokio::time::timeout(SOON, running).await.unwrap();
    assert_eq!((task.node_hostname.as_str(), task.image.as_str()), ("node-2", "docker.io/shop/web:1"));
    eventually(|| async { Some(cluster.service("web").await).filter(|web| web.running_tasks == 1) }).await;
    cluster.manager.stop().await;
    assert!(agent.incoming.message().await.is_err(), "the session ends with the manager");
}

#[tokio::test]
async fn refusals_name_what_is_wrong() {
    let cluster = Cluster::new().await;
    let mut services = cluster.services();
    let refused = |spec| {
        let mut services = cluster.services();
        async move {
            let status = services.create(create(spec)).await.unwrap_err();
            (status.code(), status.message().to_owned())
        }
    };
    let (code, message) = refused(spec("we b", "shop/web:1", 1)).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("we b"), "{message}");

    let (code, message) = refused(spec("web", "Shop/Web:1", 1)).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("Shop/Web"), "{message}");

    services.create(create(spec("web", "shop/web:1", 0))).await.unwrap();
    assert_eq!(refused(spec("web", "shop/web:1", 0)).await.0, Code::AlreadyExists);

    let status = services.get(v1::GetServiceRequest { service: "wep".to_owned() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("did you mean web"), "{}", status.message());

    // Nothing listens at port 1 of the loopback.
    let mut unknown = spec("other", "localhost:1/nothing:1", 1);
    unknown.task.as_mut().unwrap().container.as_mut().unwrap().image.as_mut().unwrap().no_resolve = false;
    let (code, message) = refused(unknown).await;
    assert_eq!(code, Code::FailedPrecondition);
    for part in ["localhost:1/nothing:1", "not in the cluster's image store", "image load"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn an_update_needs_the_current_version_and_keeps_what_it_does_not_change() {
    let cluster = Cluster::new().await;
    let mut services = cluster.services();
    services.create(create(spec("web", "shop/web:1", 1))).await.unwrap();
    let before = cluster.service("web").await;
    let mut changed = before.spec.clone().unwrap();
    let mode = v1::service_mode::Mode::Replicated(v1::service_mode::Replicated { replicas: 3 });
    changed.mode = Some(v1::ServiceMode { mode: Some(mode) });
    let update = |version| v1::UpdateServiceRequest {
        service_id: "web".to_owned(),
        version,
        spec: Some(changed.clone()),
    };
    let version = before.meta.unwrap().version;
    let stale = services.update(update(version + 1_000)).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    assert!(stale.message().contains("update out of sequence"), "{}", stale.message());
    let after = services.update(update(version)).await.unwrap().into_inner().service.unwrap();
    assert_eq!((after.desired_tasks, after.revision), (3, before.revision));
    assert_eq!(after.spec.unwrap().task, before.spec.unwrap().task);
}

#[tokio::test]
async fn a_repeated_request_makes_one_service() {
    let cluster = Cluster::new().await;
    let request = v1::CreateServiceRequest {
        spec: Some(spec("web", "shop/web:1", 1)),
        request_id: "0123456789abcdefghijklmno".to_owned(),
    };
    let first = cluster.services().create(request.clone()).await.unwrap().into_inner().service.unwrap();
    let second = cluster.services().create(request).await.unwrap().into_inner().service.unwrap();
    assert_eq!(first.id, second.id);
    let list = cluster.services().list(v1::ListServicesRequest {}).await.unwrap().into_inner();
    assert_eq!(list.services.len(), 1);
}
