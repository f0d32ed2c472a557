//! `cluster ca`: the root certificate, and its replacement. A rotation goes on by itself; what is shown is how far it is.

use std::time::{Duration, Instant};

use swarm_proto::v1;

use crate::client::Client;
use crate::failure::{Failure, Result};

/// How often it is asked how far the rotation is.
const LOOK: Duration = Duration::from_millis(200);
/// Nodes that have not followed after so long are named, with the reason.
const NAMED_AFTER: Duration = Duration::from_secs(3);
/// Without an answer of the managers for so long, nobody can say how far it is.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run(client: &Client, rotate: bool, detach: bool, quiet: bool) -> Result<()> {
    if !rotate {
        let cluster = get(client).await?;
        print!("{}", cluster.root_certificate);
        if let (Some(rotation), false) = (cluster.rotation, quiet) {
            eprintln!("this root certificate is being replaced: {}", progress(&rotation));
            rotation.waiting.iter().for_each(|node| eprintln!("{}", waiting(node)));
        }
        return Ok(());
    }
    let begun = client.clusters().rotate_root(v1::RotateRootRequest {}).await?.into_inner();
    let coming = begun.rotation.map(|rotation| rotation.root_certificate).unwrap_or_default();
    if detach {
        eprintln!("the root certificate is being replaced; `swarmctl cluster ca` tells how far it is");
        return Ok(());
    }
    let root = follow(client, &coming, quiet).await?;
    print!("{root}");
    if !quiet {
        eprintln!(
            "The root certificate was replaced, and with it the join tokens: swarmctl cluster join-token worker"
        );
        eprintln!("Operators whose certificates are older need a new token: swarmctl cluster operator-token");
    }
    Ok(())
}

async fn get(client: &Client) -> Result<v1::Cluster> {
    Ok(client.clusters().get(v1::GetClusterRequest {}).await?.into_inner())
}

/// Until the root is `coming`.
async fn follow(client: &Client, coming: &str, quiet: bool) -> Result<String> {
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let (begun, mut answered) = (Instant::now(), Instant::now());
    let mut shown = Vec::new();
    loop {
        match get(client).await {
            Ok(cluster) if cluster.root_certificate == coming => return Ok(coming.to_owned()),
            Ok(cluster) => {
                answered = Instant::now();
                let rotation = cluster.rotation.filter(|rotation| rotation.root_certificate == coming);
                let rotation = rotation.ok_or_else(|| {
                    Failure::failed("another rotation of the root certificate began")
                        .next("swarmctl cluster ca")
                })?;
                let mut lines = vec![progress(&rotation)];
                if begun.elapsed() >= NAMED_AFTER {
                    lines.extend(rotation.waiting.iter().map(waiting));
                }
                // Each line once: a log is not flooded by a rotation that waits for days.
                for line in &lines {
                    if !quiet && !shown.contains(line) {
                        eprintln!("{line}");
                    }
                }
                shown = lines;
            }
            // While leadership moves, there may be no answer.
            Err(failure) if answered.elapsed() >= PATIENCE => return Err(failure),
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = &mut interrupt => {
                return Err(Failure::failed("stopped watching; the rotation goes on").next("swarmctl cluster ca"));
            }
        }
    }
}

fn progress(rotation: &v1::RootRotation) -> String {
    format!("rotated certificates: {}/{} nodes", rotation.done, rotation.nodes)
}

fn waiting(node: &v1::root_rotation::Waiting) -> String {
    format!("waiting for {}: {}", node.hostname, node.reason)
}
