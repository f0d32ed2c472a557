//! Logs from the agent that has them to the operator who asked.

use swarm_proto::v1;
use swarm_proto::v1::logs_client::LogsClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::support::{Agent, Cluster, SOON, create, spec};

async fn running(cluster: &Cluster, agent: &mut Agent) -> String {
    cluster.services().create(create(spec("web", "shop/web:1", 1))).await.unwrap();
    let task = agent.expect_assignment().await.task_id;
    agent.report(&task, v1::TaskState::Running).await;
    crate::support::eventually(|| async {
        Some(cluster.service("web").await).filter(|web| web.running_tasks == 1)
    })
    .await;
    task
}

async fn subscribe(cluster: &Cluster, follow: bool) -> Streaming<v1::LogEntry> {
    let service_id = cluster.service("web").await.id;
    let request = v1::SubscribeLogsRequest { service_id, follow, ..Default::default() };
    LogsClient::new(cluster.operator.clone()).subscribe(request).await.unwrap().into_inner()
}

async fn asked(agent: &mut Agent) -> v1::LogSubscription {
    agent
        .expect(|message| match message {
            v1::manager_message::Message::SubscribeLogs(subscription) => Some(subscription),
            _ => None,
        })
        .await
}

fn line(task: &str, text: &str) -> v1::LogEntry {
    v1::LogEntry { task_id: task.to_owned(), at: 5, line: text.to_owned().into(), ..Default::default() }
}

async fn next(entries: &mut Streaming<v1::LogEntry>) -> Option<v1::LogEntry> {
    tokio::time::timeout(SOON, entries.message()).await.expect("in time").unwrap()
}

#[tokio::test]
async fn lines_reach_the_subscriber_and_the_stream_ends_with_them() {
    let cluster = Cluster::new().await;
    let mut agent = cluster.agent("node-2").await;
    let task = running(&cluster, &mut agent).await;
    let mut entries = subscribe(&cluster, false).await;
    let subscription = asked(&mut agent).await;
    assert_eq!(subscription.task_ids, [task.as_str()]);

    // What an agent says about names does not count.
    let posing = v1::LogEntry { service_name: "other".to_owned(), ..line(&task, "hello") };
    let batch = v1::PublishLogsRequest { subscription_id: subscription.id, entries: vec![posing] };
    let mut logs = LogsClient::new(agent.channel.clone());
    logs.publish(tokio_stream::iter([batch.clone()])).await.unwrap();
    let entry = next(&mut entries).await.unwrap();
    assert_eq!((&entry.line[..], entry.service_name.as_str()), (&b"hello"[..], "web"));
    assert_eq!((entry.node_hostname.as_str(), entry.slot), ("node-2", 1));
    assert_eq!(next(&mut entries).await, None);

    let late = logs.publish(tokio_stream::iter([batch])).await.unwrap_err();
    assert_eq!(late.code(), Code::NotFound);
}

#[tokio::test]
async fn an_agent_sends_only_what_it_was_asked_for() {
    let cluster = Cluster::new().await;
    let mut agent = cluster.agent("node-2").await;
    let other = cluster.agent("node-3").await;
    // Which of the two gets the task is the scheduler's choice; both are tried with the other's subscription.
    cluster.services().create(create(spec("web", "shop/web:1", 2))).await.unwrap();
    let task = agent.expect_assignment().await.task_id;
    agent.report(&task, v1::TaskState::Running).await;
    crate::support::eventually(|| async {
        Some(cluster.service("web").await).filter(|web| web.running_tasks == 1)
    })
    .await;
    let mut entries = subscribe(&cluster, true).await;
    let id = asked(&mut agent).await.id;
    let batch = |task: &str| v1::PublishLogsRequest { subscription_id: id, entries: vec![line(task, "x")] };
    let stolen = LogsClient::new(other.channel.clone()).publish(tokio_stream::iter([batch(&task)])).await;
    assert_eq!(stolen.unwrap_err().code(), Code::NotFound);
    let foreign = "0123456789abcdefghijklmno";
    let refused = LogsClient::new(agent.channel.clone()).publish(tokio_stream::iter([batch(foreign)])).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let notice = next(&mut entries).await.unwrap().notice;
    assert!(notice.contains("node-2 broke off") && notice.contains("web."), "{notice}");
    // It is asked again.
    assert_ne!(asked(&mut agent).await.id, id);
}

#[tokio::test]
async fn a_lost_node_is_a_notice_and_who_follows_gets_new_tasks() {
    let cluster = Cluster::new().await;
    let mut agent = cluster.agent("node-2").await;
    let task = running(&cluster, &mut agent).await;
    let mut following = subscribe(&cluster, true).await;
    let subscription = asked(&mut agent).await;
    let (batches, outgoing) = mpsc::channel(4);
    let hello = v1::PublishLogsRequest { subscription_id: subscription.id, entries: Vec::new() };
    batches.send(hello.clone()).await.unwrap();
    let channel = agent.channel.clone();
    let publishing =
        tokio::spawn(async move { LogsClient::new(channel).publish(ReceiverStream::new(outgoing)).await });
    let batch = v1::PublishLogsRequest { entries: vec![line(&task, "one")], ..hello };
    batches.send(batch).await.unwrap();
    assert_eq!(&next(&mut following).await.unwrap().line[..], b"one");

    let Agent { credentials, incoming, outgoing, channel } = agent;
    publishing.abort();
    drop((incoming, outgoing, channel));
    let notice = next(&mut following).await.unwrap().notice;
    assert!(notice.contains("node-2"), "{notice}");
    let mut once = subscribe(&cluster, false).await;
    let notice = next(&mut once).await.unwrap().notice;
    assert!(notice.contains("node-2 is not connected"), "{notice}");
    assert_eq!(next(&mut once).await, None);

    let mut back = Agent::open(&cluster.address(), credentials, "node-2").await;
    let again = asked(&mut back).await;
    assert_eq!((again.since, again.tail), (5, None));
}
