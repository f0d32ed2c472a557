//! Real containers: from an assignment to a process and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_agent_core::fake::assignment;
use swarm_model::{
    AgentMessage, Assignment, DesiredState, ImageRef, LogSubscription, ManagerMessage, Mount, MountKind,
    TaskId, TaskState,
};

use crate::host::{busybox_image, on_host};
use crate::manager::{Manager, Session};

fn task(number: u8, image: &ImageRef, script: &str) -> Assignment {
    let mut task = assignment(TaskId::from_u128(number.into()), DesiredState::Running);
    task.address = std::net::Ipv4Addr::new(10, 192, 4, 11 + number);
    task.slot = number.into();
    let container = &mut Arc::make_mut(&mut task.spec).container;
    container.image = image.clone();
    container.args = ["sh", "-c", script].map(str::to_owned).to_vec();
    container.stop_grace_period = Duration::from_secs(5);
    task
}

fn id(number: u8) -> TaskId {
    TaskId::from_u128(number.into())
}

async fn open(manager: &mut Manager) -> Session {
    let mut session = manager.session().await;
    session.registration().await;
    session.welcome(&[]).await;
    session
}

async fn logs_of(session: &Session, manager: &mut Manager, task: TaskId) -> Vec<String> {
    let subscription =
        LogSubscription { id: 7, tasks: vec![task], follow: true, tail: None, since_micros: None };
    session.send(ManagerMessage::SubscribeLogs(subscription)).await;
    let mut lines = Vec::new();
    loop {
        let entry = manager.log().await;
        if entry.notice == "end" {
            return lines;
        }
        lines.push(String::from_utf8(entry.line.to_vec()).unwrap());
    }
}

#[test]
fn a_container_runs_logs_ends_and_leaves_nothing() {
    on_host(|host| async move {
        let image = busybox_image(&host.content());
        let mut manager = Manager::start(Some(host.content())).await;
        let agent = host.start(&manager);
        let mut session = open(&mut manager).await;
        let script = "echo I am $(hostname) $WHO; cat /etc/hosts | tail -n 1; echo bad >&2; exit 3";
        let mut one = task(1, &image, script);
        Arc::make_mut(&mut one.spec).container.env = vec!["WHO={{.Service.Name}}.{{.Task.Slot}}".to_owned()];
        session.assign(vec![one]).await;
        let status = session.status(id(1), TaskState::Complete).await;
        assert_eq!((status.state, status.exit_code), (TaskState::Failed, Some(3)), "{status:?}");
        let mut lines = logs_of(&session, &mut manager, id(1)).await;
        lines.sort();
        let own = "000000000000";
        assert_eq!(lines, [format!("10.192.4.12\t{own}"), format!("I am {own} web.1"), "bad".to_owned()]);
        session.assign(Vec::new()).await;
        wait_until(|| {
            host.cgroups().is_empty()
                && host.directory().join("containers").read_dir().unwrap().next().is_none()
        })
        .await;
        agent.leave().await.unwrap();
        assert_eq!(host.devices(), Vec::<String>::new());
    });
}

async fn wait_until(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < crate::manager::LIMIT, "it never came to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_restarted_agent_takes_over_its_containers() {
    on_host(|host| async move {
        let image = busybox_image(&host.content());
        let mut manager = Manager::start(Some(host.content())).await;
        let agent = host.start(&manager);
        let mut session = open(&mut manager).await;
        let script = "trap 'echo caught; exit 0' INT; echo up; while :; do sleep 0.05; done";
        let tasks = || vec![task(1, &image, script), task(2, &image, "sleep 0.4; exit 5")];
        session.assign(tasks()).await;
        let pid = session.status(id(1), TaskState::Running).await.pid;
        session.status(id(2), TaskState::Running).await;
        agent.stop().await;
        // The second container ends while nobody looks.
        tokio::time::sleep(Duration::from_millis(600)).await;

        let agent = host.start(&manager);
        let mut session = manager.session().await;
        let statuses = session.registration().await.statuses;
        assert_eq!((statuses[0].1.state, statuses[0].1.pid), (TaskState::Running, pid));
        assert_eq!((statuses[1].1.state, statuses[1].1.exit_code), (TaskState::Failed, Some(5)));
        assert!(
            std::time::UNIX_EPOCH.elapsed().unwrap() - Duration::from_micros(statuses[0].1.at.as_micros())
                < Duration::from_secs(60)
        );
        session.welcome(&[]).await;
        let mut stopped = tasks();
        stopped[0].desired = DesiredState::Shutdown;
        session.assign(stopped).await;
        // The image's stop signal, looked up again, reaches it.
        let status = session.status(id(1), TaskState::Shutdown).await;
        assert_eq!((status.state, status.exit_code), (TaskState::Shutdown, Some(0)));
        assert_eq!(logs_of(&session, &mut manager, id(1)).await, ["up", "caught"]);
        agent.leave().await.unwrap();
        assert!(host.cgroups().is_empty());
    });
}

#[test]
fn a_volume_outlives_its_tasks_and_the_membership() {
    on_host(|host| async move {
        let image = busybox_image(&host.content());
        let mut manager = Manager::start(Some(host.content())).await;
        let agent = host.start(&manager);
        let mut session = open(&mut manager).await;
        let writes = |number, script| {
            let mut task = task(number, &image, script);
            let kind = MountKind::Volume { name: "data".to_owned() };
            let mount = Mount { kind, target: "/data".to_owned(), read_only: false };
            Arc::make_mut(&mut task.spec).container.mounts = vec![mount];
            task
        };
        session.assign(vec![writes(1, "echo kept > /data/file")]).await;
        let status = session.status(id(1), TaskState::Complete).await;
        assert_eq!(status.state, TaskState::Complete, "{status:?}");
        session.assign(vec![writes(2, "cat /data/file")]).await;
        session.status(id(2), TaskState::Complete).await;
        assert_eq!(logs_of(&session, &mut manager, id(2)).await, ["kept"]);
        agent.leave().await.unwrap();
        assert_eq!(std::fs::read(host.volumes().join("data/file")).unwrap(), b"kept\n");
    });
}

#[test]
fn failures_name_what_failed() {
    on_host(|host| async move {
        let image = busybox_image(&host.content());
        let mut manager = Manager::start(Some(host.content())).await;
        let agent = host.start(&manager);
        let mut session = open(&mut manager).await;
        let missing = ImageRef {
            name: "shop/web:9".to_owned(),
            digest: Some(format!("sha256:{}", "a".repeat(64))),
            ..image.clone()
        };
        let mut command = task(2, &image, "");
        Arc::make_mut(&mut command.spec).container.args = vec!["/nope".to_owned()];
        let mut hog = task(3, &image, "tail /dev/zero");
        Arc::make_mut(&mut hog.spec).limits.memory_bytes = Some(16 << 20);
        session.assign(vec![task(1, &missing, "true"), command, hog]).await;
        let mut ends = std::collections::BTreeMap::new();
        while ends.len() < 3 {
            if let AgentMessage::Statuses(statuses) = session.message().await {
                ends.extend(statuses.into_iter().filter(|(_, status)| status.state.is_final()));
            }
        }
        let text = |number| format!("{} {}", ends[&id(number)].state, ends[&id(number)].error);
        assert!(text(1).starts_with("rejected image shop/web:9: no manager has sha256:aaa"), "{}", text(1));
        assert!(
            text(2).starts_with("failed command not found: \"/nope\" does not exist in the image"),
            "{}",
            text(2)
        );
        assert_eq!(text(3), "failed killed by the kernel: out of memory (limit 16 MiB)");
        assert!(ends[&id(3)].oom_killed);
        agent.leave().await.unwrap();
        assert!(host.cgroups().is_empty());
    });
}

#[test]
fn thirty_containers_start_together() {
    on_host(|host| async move {
        let image = busybox_image(&host.content());
        let mut manager = Manager::start(Some(host.content())).await;
        let agent = host.start(&manager);
        let mut session = open(&mut manager).await;
        let begin = Instant::now();
        session.assign(vec![task(1, &image, "sleep 1000")]).await;
        session.status(id(1), TaskState::Running).await;
        let first = begin.elapsed();
        let begin = Instant::now();
        session.assign(vec![task(1, &image, "sleep 1000"), task(2, &image, "sleep 1000")]).await;
        session.status(id(2), TaskState::Running).await;
        let second = begin.elapsed();
        let begin = Instant::now();
        let all: Vec<_> = (1..=32).map(|number| task(number, &image, "sleep 1000")).collect();
        session.assign(all.clone()).await;
        let mut running = std::collections::BTreeSet::from([id(1), id(2)]);
        while running.len() < all.len() {
            if let AgentMessage::Statuses(statuses) = session.message().await {
                let new = statuses.into_iter().filter(|(_, status)| {
                    assert!(!status.state.is_final(), "{status:?}");
                    status.state == TaskState::Running
                });
                running.extend(new.map(|(task, _)| task));
            }
        }
        println!("first {first:?} (with the image), second {second:?}, thirty more {:?}", begin.elapsed());
        agent.leave().await.unwrap();
        assert!(host.cgroups().is_empty());
        assert_eq!(host.devices(), Vec::<String>::new());
    });
}
