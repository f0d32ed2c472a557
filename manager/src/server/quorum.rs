//! What an operator is told where no manager leads: who is reached, who is not and why, how many are needed, what to do.

use swarm_manager_core::api::{ApiError, OwnState, Request, Response};
use tonic::Status;

use crate::engine::Engine;
use crate::peers::Peers;

/// One manager, as this one sees it.
#[derive(Debug)]
struct Seen {
    name: String,
    address: String,
    /// `Err`: why it is not reached.
    reached: Result<String, String>,
    votes: bool,
}

/// For a call that waited long enough.
pub async fn no_leader(engine: &Engine, peers: &Peers) -> Status {
    let text = match engine.request(Request::GetOwnState).await {
        Ok(Response::OwnState(state)) => describe(&look(&state, peers)),
        Ok(other) => unreachable!("GetOwnState is answered by that, not by {other:?}"),
        Err(ApiError::Unavailable(text)) => text,
        Err(_) => "the cluster has no leader; repeat the command in a moment".to_owned(),
    };
    Status::unavailable(text)
}

fn look(state: &OwnState, peers: &Peers) -> Vec<Seen> {
    let seated = state.capture.nodes().filter_map(|node| node.raft_id.map(|id| (id, node)));
    let seen = seated.map(|(id, node)| Seen {
        name: node.engine.hostname.clone(),
        address: node.manager_address.clone().unwrap_or_default(),
        reached: if id == peers.own() {
            Ok(format!("this one, term {}", state.term))
        } else if state.reachable.contains(&id) {
            Ok(String::new())
        } else {
            Err(peers.trouble(id).unwrap_or_else(|| "no answer".to_owned()))
        },
        votes: state.voters.contains(&id),
    });
    seen.collect()
}

fn describe(managers: &[Seen]) -> String {
    let with = |manager: &Seen, remark: &str| match remark {
        "" => manager.name.clone(),
        remark => format!("{} ({remark})", manager.name),
    };
    let reached = managers.iter().filter_map(|it| Some(with(it, it.reached.as_ref().ok()?)));
    let lost = managers.iter().filter_map(|it| {
        let reason = it.reached.as_ref().err()?;
        Some(format!("{} {} ({reason})", it.name, it.address))
    });
    let (reached, lost) = (reached.collect::<Vec<_>>(), lost.collect::<Vec<_>>());
    let voters = managers.iter().filter(|it| it.votes).count();
    let present = managers.iter().filter(|it| it.votes && it.reached.is_ok()).count();
    let needed = voters / 2 + 1;
    if present >= needed {
        return format!(
            "the cluster has no leader at the moment: {} of {voters} managers are reached ({}), which is enough to elect one; \
             repeat the command",
            present,
            reached.join(", ")
        );
    }
    format!(
        "the cluster has no leader: managers reached: {}; not reached: {}; needs {needed} of {voters}. Start them again, or \
         `swarmctl cluster recover` here if they are lost for good",
        reached.join(", "),
        lost.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, reached: Result<&str, &str>) -> Seen {
        Seen {
            name: name.to_owned(),
            address: format!("{name}:2377"),
            reached: reached.map(str::to_owned).map_err(str::to_owned),
            votes: true,
        }
    }

    #[test]
    fn who_is_missing_and_what_to_do_is_said() {
        let own = || seen("n1", Ok("this one, term 7"));
        let lost = describe(&[own(), seen("n2", Err("connection refused")), seen("n3", Err("no answer"))]);
        let expect = "the cluster has no leader: managers reached: n1 (this one, term 7); not reached: n2 n2:2377 \
                      (connection refused), n3 n3:2377 (no answer); needs 2 of 3. Start them again, or `swarmctl cluster \
                      recover` here if they are lost for good";
        assert_eq!(lost, expect);
        let soon = describe(&[own(), seen("n2", Ok("")), seen("n3", Err("no answer"))]);
        assert!(soon.contains("2 of 3 managers are reached (n1 (this one, term 7), n2)"), "{soon}");
    }
}
