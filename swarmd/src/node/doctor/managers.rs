//! The way to each manager: whether it answers, how fast, and what its clock says.

use std::time::{Duration, Instant, SystemTime};

use swarm_pki::{Credentials, Dialler};
use swarm_proto::v1;
use swarm_proto::v1::certificate_authority_client::CertificateAuthorityClient;

use super::Finding;

/// A manager that takes longer is as good as down.
const LIMIT: Duration = Duration::from_secs(3);
/// Managers that are asked; a cluster has seven at the most.
const MAX_MANAGERS: usize = 16;
const SLOW_ANSWER: Duration = Duration::from_millis(100);
/// Clocks that differ by more confuse whoever reads times of several nodes, and delays of restarts.
const SKEW: Duration = Duration::from_secs(1);

pub async fn examine(credentials: &Credentials, addresses: &[String]) -> Vec<Finding> {
    let dialler = match Dialler::new(credentials) {
        Ok(dialler) => dialler,
        Err(error) => return vec![Finding::failure("credentials", chain(error), "let the node join anew")],
    };
    let addresses = &addresses[..addresses.len().min(MAX_MANAGERS)];
    let answers = addresses.iter().map(|address| examine_one(&dialler, address));
    futures_util::future::join_all(answers).await.into_iter().flatten().collect()
}

async fn examine_one(dialler: &Dialler, address: &str) -> Vec<Finding> {
    match tokio::time::timeout(LIMIT, ask(dialler, address)).await {
        Ok(Ok((took, skew))) => vec![reached(address, took), clock(address, skew)],
        Ok(Err(reason)) => vec![unreached(address, &reason)],
        Err(_) => vec![unreached(address, &format!("no answer within {} s", LIMIT.as_secs()))],
    }
}

/// How long an answer takes, and by how many seconds the manager's clock is ahead of ours.
async fn ask(dialler: &Dialler, address: &str) -> Result<(Duration, f64), String> {
    let channel = dialler.connect(address).await.map_err(chain)?;
    let begun = Instant::now();
    let answer = CertificateAuthorityClient::new(channel).get_root(v1::GetRootRequest {}).await;
    let took = begun.elapsed();
    let theirs = answer.map_err(|status| status.message().to_owned())?.into_inner().now as f64 / 1e6;
    let ours = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
    Ok((took, theirs + took.as_secs_f64() / 2.0 - ours))
}

fn reached(address: &str, took: Duration) -> Finding {
    let found = format!("{address} answers in {:.1} ms", took.as_secs_f64() * 1e3);
    if took > SLOW_ANSWER {
        return Finding::warning("manager", found, "look at the network, and at the manager's disk and load");
    }
    Finding::fine("manager", found)
}

fn clock(address: &str, skew: f64) -> Finding {
    let found = format!(
        "{:.1} ms {} that of {address}",
        skew.abs() * 1e3,
        if skew < 0.0 { "ahead of" } else { "behind" }
    );
    if skew.abs() > SKEW.as_secs_f64() {
        return Finding::warning(
            "clock",
            found,
            "set the clocks of both: systemctl enable --now systemd-timesyncd",
        );
    }
    Finding::fine("clock", found)
}

fn unreached(address: &str, reason: &str) -> Finding {
    Finding::failure(
        "manager",
        format!("{address} does not answer: {reason}"),
        "look whether swarmd runs there, and whether a firewall lets its port through",
    )
}

fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
