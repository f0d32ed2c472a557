//! Why an operation was refused, in the operator's words: what, why, and what to do.

use std::fmt;

use swarm_model::SpecError;

/// Kind of an object, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Cluster,
    Node,
    Service,
    Task,
    Image,
    Operator,
}

/// Why an operation was refused. A refused operation changed nothing, but for [`ApiError::Unavailable`] where the text
/// says that the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    #[error("no {kind} is called {query:?}{}", did_you_mean(.candidates, .kind))]
    NotFound { kind: Kind, query: String, candidates: Vec<String> },
    #[error("{query:?} fits more than one {kind}: {}; write more of the id", .matches.join(", "))]
    Ambiguous { kind: Kind, query: String, matches: Vec<String> },
    #[error("{what} is taken by {holder}; {advice}")]
    AlreadyExists { what: String, holder: String, advice: &'static str },
    #[error("the spec was refused")]
    Invalid(#[source] SpecError),
    #[error(
        "update out of sequence: the {kind} is at version {current}, the update was made for version {given}; read it \
         again and repeat the change"
    )]
    OutOfSequence { kind: Kind, given: u64, current: u64 },
    #[error("{0}")]
    FailedPrecondition(String),
    #[error("{what} is {size}, at most {limit} is allowed")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    /// `leader` is its Raft id.
    #[error("this manager does not lead the cluster; {}", match .leader {
        Some(_) => "ask the leader",
        None => "there is no leader at the moment: repeat the command",
    })]
    NotLeader { leader: Option<u64> },
    /// Something was asked for that is not kept any more.
    #[error(
        "events up to index {oldest} are not all kept any more; begin behind them, with --since {oldest}, or with what there \
         is, without --since"
    )]
    EventsGone { oldest: u64 },
    /// The caller may not.
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Unavailable(String),
}

impl ApiError {
    /// The answer to everything that was proposed and then lost sight of when leadership changed.
    pub(crate) fn outcome_unknown() -> Self {
        Self::Unavailable(
            "the outcome is unknown: leadership changed while the request was written; look whether it was done, then \
             repeat it"
                .to_owned(),
        )
    }
}

fn did_you_mean(candidates: &[String], kind: &Kind) -> String {
    if candidates.is_empty() {
        let noun = match kind {
            Kind::Operator => "cluster operator",
            Kind::Cluster | Kind::Node | Kind::Service | Kind::Task | Kind::Image => &kind.to_string(),
        };
        format!("; `swarmctl {noun} ls` shows all")
    } else {
        format!("; did you mean {}?", candidates.join(" or "))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Service => "service",
            Self::Task => "task",
            Self::Image => "image",
            Self::Operator => "operator",
        })
    }
}
