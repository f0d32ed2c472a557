//! A disk that fills up: writes are refused in time, the rest goes on, and all comes back by itself.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use swarm_manager::Manager;
use swarm_proto::v1;

use crate::support::{Agent, config, create, eventually, founding, operator, spec};

/// Fills the disk until that much is free.
fn fill(path: &Path, free_bytes: u64) {
    let space = rustix::fs::statvfs(path).unwrap();
    let now = space.f_bavail * space.f_frsize;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    let size = file.metadata().unwrap().len() + now.saturating_sub(free_bytes);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
}

/// Runs in a thread whose mounts nobody else sees, and which are gone with it.
fn on_a_disk_of_its_own(test: impl AsyncFnOnce(&Path) + Send + 'static) {
    assert!(rustix::process::geteuid().is_root(), "this test mounts a small disk: run it as root");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=256m")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&path));
        drop(runtime);
        // What still runs would hold the mount.
        let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
    });
    thread.join().unwrap();
}

#[test]
fn a_full_disk_refuses_writes_in_time_and_recovers_by_itself() {
    on_a_disk_of_its_own(async |path| {
        let (manager, credentials) = Manager::bootstrap(config(path), founding()).await.unwrap();
        let operator = operator(&manager, &path.join("local.sock")).await;
        let mut services = v1::services_client::ServicesClient::new(operator.clone());
        let mut nodes = v1::nodes_client::NodesClient::new(operator.clone());
        services.create(create(spec("before", "shop/web:1", 1))).await.unwrap();
        let node = credentials.identity().node;
        let mut agent = Agent::open(&manager.address().to_string(), credentials, "node-1").await;
        agent
            .expect(|message| matches!(message, v1::manager_message::Message::Welcome(_)).then_some(()))
            .await;

        let filler = path.join("filler");
        std::fs::write(&filler, b"").unwrap();
        fill(&filler, 32 << 20);
        let refusal = eventually(|| async {
            services.clone().create(create(spec("refused", "shop/web:1", 1))).await.err()
        })
        .await;
        let text = refusal.message();
        assert_eq!(refusal.code(), tonic::Code::FailedPrecondition, "{text}");
        assert!(text.contains("nearly full") && text.contains("nothing was changed"), "{text}");

        // Even with nothing left at all, what is there goes on.
        fill(&filler, 0);
        let list = nodes.list(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
        assert_eq!(list.len(), 1, "{node}");
        let heard = |message| matches!(message, v1::manager_message::Message::Heartbeat(_)).then_some(());
        agent.expect(heard).await;
        services.remove(v1::RemoveServiceRequest { service_id: "before".to_owned() }).await.unwrap();

        std::fs::remove_file(&filler).unwrap();
        eventually(|| async { services.clone().create(create(spec("after", "shop/web:1", 1))).await.ok() })
            .await;
        manager.stop().await;
    });
}
