//! What the operator is told when a command did not succeed: what happened, why, and the next command to run.

use std::fmt;
use std::process::ExitCode;

use swarm_pki::Unreachable;

/// Exit codes; part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Failed = 1,
    Timeout = 3,
    RolledBack = 4,
    NotAllowed = 5,
    Unreachable = 6,
    /// This manager waits for `cluster unlock`.
    Locked = 7,
    Usage = 64,
}

#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    what: String,
    why: Option<String>,
    next: Option<String>,
    broken_pipe: bool,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), why: None, next: None, broken_pipe: false }
    }

    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Code::Failed, what)
    }

    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Code::Usage, what)
    }

    /// One line per address, with why it was not reached.
    pub fn unreachable(error: &Unreachable) -> Self {
        let lines: Vec<String> = error.0.iter().map(|(address, why)| format!("{address}  {why}")).collect();
        let failure = Self::new(Code::Unreachable, error.to_string()).why(lines.join("\n       "));
        if error.0.iter().all(|(_, why)| why.contains("UnknownIssuer")) {
            return failure.next(
                "the cluster's root was replaced, or it is another cluster: make a new context with a new token \
                 (swarmctl cluster operator-token)",
            );
        }
        failure.next("are they up, and is port 2377 open to here? swarmctl context show has the addresses")
    }

    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    pub fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(why) = &self.why {
            write!(f, "\n  why: {why}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

/// On answers of a node whose manager is locked.
const LOCKED_TRAILER: &str = "swarm-locked";

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let code = match status.code() {
            _ if status.metadata().contains_key(LOCKED_TRAILER) => Code::Locked,
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Code::NotAllowed,
            tonic::Code::Unavailable => Code::Unreachable,
            tonic::Code::DeadlineExceeded => Code::Timeout,
            _ => Code::Failed,
        };
        let mut cause = std::error::Error::source(&status);
        while let Some(error) = cause {
            if let Some(unreachable) = error.downcast_ref::<Unreachable>() {
                return Self::unreachable(unreachable);
            }
            let text = error.to_string();
            if text.contains("received fatal alert") {
                return Self::new(Code::NotAllowed, "the managers refuse this context's certificate")
                    .why(text)
                    .next("an admin makes a new token with: swarmctl cluster operator-token");
            }
            cause = error.source();
        }
        let message = status.message();
        let what = if message.is_empty() {
            format!("the manager answered {:?}", status.code())
        } else {
            message.to_owned()
        };
        Self::new(code, what)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let broken_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { broken_pipe, ..Self::failed(error.to_string()) }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}
