//! The cluster's image store, from archive to node.

use swarm_pki::Dialler;
use swarm_proto::v1;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::{Cluster, create, eventually, spec};

/// What `docker save` writes, with one layer that holds one file.
fn archive(name: &str, content: &str) -> Vec<u8> {
    let layer = tar(&[("hello", content.as_bytes())]);
    let diff_id = swarm_image::Digest::of(&layer);
    let config = format!(
        "{{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{{\"Cmd\":[\"/hello\"]}},\"rootfs\":{{\"type\":\
         \"layers\",\"diff_ids\":[\"{diff_id}\"]}}}}"
    );
    let manifest =
        format!("[{{\"Config\":\"config.json\",\"RepoTags\":[\"{name}\"],\"Layers\":[\"layer.tar\"]}}]");
    tar(&[("layer.tar", &layer), ("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())])
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn client(cluster: &Cluster) -> v1::images_client::ImagesClient<Channel> {
    v1::images_client::ImagesClient::new(cluster.operator.clone())
}

async fn load(cluster: &Cluster, archive: &[u8]) -> Result<Vec<v1::Image>, Status> {
    let chunks: Vec<_> =
        archive.chunks(1_000).map(|chunk| v1::LoadImageRequest { chunk: chunk.to_vec().into() }).collect();
    Ok(client(cluster).load(tokio_stream::iter(chunks)).await?.into_inner().images)
}

async fn blob(channel: &Channel, digest: &str) -> Result<Vec<u8>, Status> {
    let request = v1::GetBlobRequest { digest: digest.to_owned(), own_only: false };
    let mut chunks =
        v1::images_client::ImagesClient::new(channel.clone()).get_blob(request).await?.into_inner();
    let mut content = Vec::new();
    let mut total = None;
    while let Some(chunk) = chunks.message().await? {
        total = total.or(Some(chunk.total_bytes));
        content.extend_from_slice(&chunk.data);
    }
    assert_eq!(total, Some(content.len() as u64));
    Ok(content)
}

#[tokio::test]
async fn a_loaded_image_is_pinned_by_services_and_served_to_nodes() {
    let cluster = Cluster::new().await;
    let images = load(&cluster, &archive("shop/web:1", "hello")).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].name, "docker.io/shop/web:1");
    let manager = Dialler::new(&cluster.credentials).unwrap().connect(&cluster.address()).await.unwrap();
    let manifest = blob(&manager, &images[0].digest).await.unwrap();
    assert_eq!(swarm_image::Digest::of(&manifest).to_string(), images[0].digest);
    let missing = format!("sha256:{}", "0".repeat(64));
    assert_eq!(blob(&manager, &missing).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(blob(&manager, "../etc").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(blob(&cluster.operator, &missing).await.unwrap_err().code(), Code::PermissionDenied);

    let removed = cluster.agent("node-3").await;
    let node_id = removed.credentials.identity().node.to_string();
    let mut nodes = v1::nodes_client::NodesClient::new(cluster.operator.clone());
    nodes.remove(v1::RemoveNodeRequest { node_id, force: true }).await.unwrap();
    let refused = blob(&removed.channel, &images[0].digest).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{}", refused.message());

    let mut wanted = spec("web", "shop/web:1", 1);
    wanted.task.as_mut().unwrap().container.as_mut().unwrap().image.as_mut().unwrap().no_resolve = false;
    cluster.services().create(create(wanted)).await.unwrap();
    let task = cluster.service("web").await.spec.unwrap().task.unwrap();
    let image = task.container.unwrap().image.unwrap();
    assert!(image.in_cluster_store);
    assert_eq!(image.digest, images[0].digest);
    assert_eq!(task.placement.unwrap().platforms[0].arch, "amd64");
}

#[tokio::test]
async fn an_image_in_use_stays_and_its_content_outlives_a_moved_name() {
    let cluster = Cluster::new().await;
    let first = load(&cluster, &archive("shop/web:1", "first")).await.unwrap().remove(0);
    cluster.services().create(create(spec("web", "shop/web:1", 1))).await.unwrap();
    let remove = |force| v1::RemoveImageRequest { name: "shop/web:1".to_owned(), force };
    let refused = client(&cluster).remove(remove(false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("web"), "{}", refused.message());

    let second = load(&cluster, &archive("shop/web:1", "second")).await.unwrap().remove(0);
    assert_ne!(first.digest, second.digest);
    client(&cluster).remove(remove(true)).await.unwrap();
    let manager = Dialler::new(&cluster.credentials).unwrap().connect(&cluster.address()).await.unwrap();
    eventually(|| async { blob(&manager, &second.digest).await.err() }).await;
    blob(&manager, &first.digest).await.expect("the service still runs it");
    assert!(client(&cluster).list(v1::ListImagesRequest {}).await.unwrap().into_inner().images.is_empty());
}

#[tokio::test]
async fn a_worker_gets_the_content_of_its_own_tasks_and_no_other() {
    let cluster = Cluster::new().await;
    let own = load(&cluster, &archive("shop/web:1", "own")).await.unwrap().remove(0);
    let foreign = load(&cluster, &archive("shop/secret:1", "foreign")).await.unwrap().remove(0);
    // The manager's node takes no tasks.
    let (first, second) = (cluster.agent("node-2").await, cluster.join("node-3").await);
    cluster.services().create(create(spec("web", "shop/web:1", 1))).await.unwrap();
    let manifest = eventually(|| async { blob(&first.channel, &own.digest).await.ok() }).await;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    blob(&first.channel, layer).await.unwrap();
    blob(&first.channel, manifest["config"]["digest"].as_str().unwrap()).await.unwrap();
    let manager = Dialler::new(&cluster.credentials).unwrap().connect(&cluster.address()).await.unwrap();
    let secret: serde_json::Value =
        serde_json::from_slice(&blob(&manager, &foreign.digest).await.unwrap()).unwrap();
    let idle = Dialler::new(&second).unwrap().connect(&cluster.address()).await.unwrap();
    let secret_layer = secret["layers"][0]["digest"].as_str().unwrap();
    for (channel, digest) in
        [(&first.channel, foreign.digest.as_str()), (&first.channel, secret_layer), (&idle, layer)]
    {
        assert_eq!(blob(channel, digest).await.unwrap_err().code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn what_is_no_image_archive_is_refused() {
    let cluster = Cluster::new().await;
    let whole = archive("shop/web:1", "hello");
    for bad in [&b"garbage"[..], &[], &whole[..whole.len() / 2], &tar(&[("readme", b"no image")])] {
        let status = load(&cluster, bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    }
    assert!(client(&cluster).list(v1::ListImagesRequest {}).await.unwrap().into_inner().images.is_empty());
    let pull = v1::PullImageRequest { name: "localhost:1/nothing:1".to_owned() };
    let mut steps = client(&cluster).pull(pull).await.unwrap().into_inner();
    let status = steps.message().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{}", status.message());
}
