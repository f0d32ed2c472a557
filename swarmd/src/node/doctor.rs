//! What keeps this node from its work, or soon may: looked at on demand, changing nothing.
//!
//! Each check is a function that gives one finding or some; a check that cannot look says so as a finding. What needs
//! the cluster's state, quorum and other nodes, is the operator's tool's, which has that state.

mod machine;
mod managers;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use swarm_pki::Credentials;
use swarm_proto::v1;
use swarm_proto::v1::FindingSeverity::{self, Failure, Fine, Warning};

/// The part of a certificate's life that should be left.
const LEAST_LIFE_LEFT: u32 = 4;

/// One line of the report.
pub struct Finding {
    subject: &'static str,
    severity: FindingSeverity,
    found: String,
    advice: String,
}

impl Finding {
    fn fine(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, severity: Fine, found: found.into(), advice: String::new() }
    }

    fn warning(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, severity: Warning, found: found.into(), advice: advice.into() }
    }

    fn failure(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, severity: Failure, found: found.into(), advice: advice.into() }
    }
}

impl From<Finding> for v1::Finding {
    fn from(finding: Finding) -> Self {
        let Finding { subject, severity, found, advice } = finding;
        Self { subject: subject.to_owned(), severity: severity as i32, found, advice }
    }
}

/// Of a manager that waits for its key.
pub fn locked() -> Finding {
    Finding::failure("lock", "this manager is locked; its containers go on", "swarmctl cluster unlock")
}

/// Of the machine, in a cluster or not. Blocks for the time of some disk writes.
pub fn examine_machine(directory: &Path, data_address: Option<Ipv4Addr>) -> Vec<Finding> {
    let mut findings = vec![machine::kernel(), machine::cgroups(), machine::overlay()];
    findings.extend(machine::disk(directory));
    findings.extend(data_address.into_iter().flat_map(machine::network));
    findings
}

/// Of the membership: the certificate, and the way to each manager.
pub async fn examine_membership(credentials: &Credentials, addresses: &[String]) -> Vec<Finding> {
    let mut findings = vec![certificate(credentials, SystemTime::now())];
    findings.extend(managers::examine(credentials, addresses).await);
    findings
}

fn certificate(credentials: &Credentials, now: SystemTime) -> Finding {
    const SUBJECT: &str = "certificate";
    const ADVICE: &str =
        "swarmctl cluster renew; if managers refuse it: swarmctl cluster leave, then cluster join";
    match credentials.validity() {
        Err(error) => Finding::failure(SUBJECT, format!("cannot be read: {error}"), ADVICE),
        Ok((from, _)) if from > now => Finding::failure(
            SUBJECT,
            format!("is valid only in {}", days(from.duration_since(now).unwrap_or_default())),
            "set this machine's clock",
        ),
        Ok((from, to)) => {
            let left = to.duration_since(now).unwrap_or_default();
            let life = to.duration_since(from).unwrap_or_default();
            let found = format!("valid for {}", days(left));
            if left.is_zero() {
                Finding::failure(
                    SUBJECT,
                    "has expired: managers refuse this node",
                    "run here what `swarmctl cluster join-token` prints on a manager; the node stays what it was",
                )
            } else if left < life / LEAST_LIFE_LEFT {
                Finding::warning(SUBJECT, found, ADVICE)
            } else {
                Finding::fine(SUBJECT, found)
            }
        }
    }
}

fn days(time: Duration) -> String {
    let hours = time.as_secs() / 3600;
    if hours >= 48 { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}
