//! `cluster doctor`: what the node found about itself, and what the cluster's state says of the others.

use swarm_proto::v1;
use swarm_proto::v1::FindingSeverity::{self, Failure as Failed, Fine, Warning};

use crate::client::Client;
use crate::failure::{Code, Failure, Result};
use crate::output::{Format, Row, print};

/// Prints a line a finding.
///
/// # Errors
/// Something is broken, or the node cannot be asked.
pub async fn run(client: &Client, format: &Format) -> Result<()> {
    let mut findings =
        client.local("cluster doctor")?.examine(v1::ExamineRequest {}).await?.into_inner().findings;
    let local = client.local("cluster doctor")?.status(v1::LocalStatusRequest {}).await?.into_inner();
    if local.cluster_id.is_empty() {
        findings.push(finding(
            "cluster",
            Warning,
            "this node is in none",
            "swarmctl cluster init, or cluster join",
        ));
    } else if local.role() == v1::NodeRole::Manager && !local.locked {
        findings.extend(of_cluster(client).await);
    }
    show(&findings, format)?;
    if local.locked {
        return Err(Failure::new(Code::Locked, "this manager is locked").next("swarmctl cluster unlock"));
    }
    match findings.iter().filter(|one| one.severity() == Failed).count() {
        0 => Ok(()),
        count => Err(Failure::failed(format!("{count} of {} checks failed", findings.len()))),
    }
}

/// What a manager knows. That it does not answer is a finding too.
async fn of_cluster(client: &Client) -> Vec<v1::Finding> {
    let nodes = match client.nodes().list(v1::ListNodesRequest::default()).await {
        Ok(answer) => answer.into_inner().nodes,
        Err(status) => {
            let advice = "a majority of the managers must run and reach each other";
            return vec![finding("quorum", Failed, status.message(), advice)];
        }
    };
    let mut findings = vec![finding("quorum", Fine, "the managers accept changes", "")];
    let down: Vec<&v1::Node> = nodes.iter().filter(|node| node.state() != v1::NodeState::Ready).collect();
    findings.push(if down.is_empty() {
        finding("nodes", Fine, &format!("all {} ready", nodes.len()), "")
    } else {
        let names: Vec<&str> = down.iter().map(|node| hostname(node)).collect();
        let found = format!("{} of {} not ready: {}", down.len(), nodes.len(), names.join(", "));
        finding("nodes", Warning, &found, "start swarmd there, or: swarmctl node rm NODE")
    });
    let mut versions: Vec<&str> =
        nodes.iter().filter_map(|node| node.engine.as_ref()).map(|it| it.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    findings.push(match &versions[..] {
        [_] | [] => finding("versions", Fine, &format!("all nodes run {}", versions.concat()), ""),
        _ => finding("versions", Warning, &versions.join(", "), "finish the upgrade of all nodes"),
    });
    findings
}

fn hostname(node: &v1::Node) -> &str {
    node.engine.as_ref().map_or(node.id.as_str(), |engine| &engine.hostname)
}

fn finding(subject: &str, severity: FindingSeverity, found: &str, advice: &str) -> v1::Finding {
    v1::Finding {
        subject: subject.to_owned(),
        severity: severity as i32,
        found: found.to_owned(),
        advice: advice.to_owned(),
    }
}

fn word(severity: FindingSeverity) -> &'static str {
    match severity {
        FindingSeverity::Unspecified | Fine => "ok",
        Warning => "warning",
        Failed => "FAILED",
    }
}

fn show(findings: &[v1::Finding], format: &Format) -> Result<()> {
    if *format == Format::Table {
        for one in findings {
            println!("{:<13} {:<8} {}", one.subject, word(one.severity()), one.found);
            if !one.advice.is_empty() {
                println!("{:<22} -> {}", "", one.advice);
            }
        }
        return Ok(());
    }
    let row = |one: &v1::Finding| {
        Row::default()
            .field("Subject", one.subject.clone())
            .field("Result", word(one.severity()).to_owned())
            .field("Found", one.found.clone())
            .field("Advice", one.advice.clone())
    };
    let rows: Vec<Row> = findings.iter().map(row).collect();
    print(&rows, format, &[])
}
