//! Making a container, in a process that exists for nothing else.
//!
//! The shim forks it into the container's cgroup; it prepares the root filesystem in a mount
//! namespace of its own, has libcontainer make the container's first process as a child of the
//! *shim*, and ends. Its mounts end with it, so none is ever seen in the host's namespace, and
//! the memory that all this takes is gone when the container runs.
//!
//! The seam to libcontainer is [`engine`]; nothing else of the crate knows it.

mod diagnose;
mod engine;
mod executor;
mod files;
mod isolation;
pub(crate) mod oci;
mod reaper;
pub(crate) mod rootfs;
mod seccomp;
mod user;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::container::ended;
use crate::record::{Directory, Launch};
use crate::spec::Mount;

/// Why an image or a host refuses a container. Each text names the thing and, where there is
/// one, the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    #[error("command not found: {command:?} {reason}")]
    CommandNotFound { command: String, reason: String },
    #[error("cannot execute {command:?}: {reason}")]
    NotExecutable { command: String, reason: String },
    #[error("user {user:?}: {reason}")]
    User { user: String, reason: String },
    #[error("working directory {path:?}: {reason}")]
    Workdir { path: String, reason: String },
    #[error("the image is refused: {reason}")]
    Image { reason: String },
    #[error("mount on {target:?}: {reason}")]
    Mount { target: String, reason: String },
    #[error("cannot {step}: {reason}")]
    Setup { step: String, reason: String },
}

impl Failure {
    /// With the innermost cause, where it is known.
    pub(crate) fn with_detail(self, detail: Option<String>) -> Self {
        match (self, detail) {
            (Self::Setup { step, .. }, Some(reason)) => Self::Setup { step, reason },
            (other, _) => other,
        }
    }

    pub(crate) fn setup(step: &str, error: &dyn std::error::Error) -> Self {
        Self::Setup { step: step.to_owned(), reason: chain(error) }
    }
}

/// What the launching process is given.
#[derive(Debug)]
pub struct Parts {
    pub directory: Directory,
    pub netns: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Where [`Report`]s go. Its last copy closes when the container's command runs.
    pub report: OwnedFd,
    /// The parent of the container to be.
    pub shim: OwnedFd,
}

/// A line that the launching process, or the container's first process before its command runs,
/// tells the shim.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The first process exists, under this number of the host.
    Init(i32),
    /// A cause that was logged; the first is the innermost.
    Detail(String),
    Failed(Failure),
}

impl Report {
    /// Sends it. A shim that is gone cannot be told anything, so nothing is returned.
    pub fn send(&self, mut to: impl Write) {
        let mut line = serde_json::to_vec(self).expect("a report is plain data");
        line.push(b'\n');
        let _ = to.write_all(&line);
    }
}

/// Ties this process to its parent, the shim: whoever kills the shim kills it too.
fn die_with(shim: BorrowedFd<'_>) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::setup("tie to the shim", error);
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| failed(&error))?;
    // It may have died before the tie was made.
    match ended(shim) {
        Ok(false) => Ok(()),
        Ok(true) => Err(failed(&io::Error::other("the shim is gone"))),
        Err(error) => Err(failed(&error)),
    }
}

/// Makes the container; returns when its command is about to run.
pub fn run(parts: Parts) -> Result<(), Failure> {
    die_with(parts.shim.as_fd())?;
    if let Ok(report) = parts.report.try_clone() {
        diagnose::report_logged_errors(report);
    }
    let launch = Launch::read(&parts.directory)
        .map_err(|error| Failure::setup("read what is to be started", &error))?;
    launch.cgroup.join_legacy().map_err(|error| Failure::setup("join the cgroup", &error))?;
    rootfs::enter_private_namespace(&parts.directory)?;
    let cgroup_view = isolation::cgroup_view(&launch.cgroup, &parts.directory)?;
    let root = rootfs::mount(&launch.spec, &parts.directory)?;
    root.refuse_redirected_mount_points()?;
    let user = user::resolve(&root, &launch.spec)?;
    let workdir = root.make_workdir(&launch.spec)?;
    refuse_missing_sources(&launch.spec.mounts)?;
    let etc = files::write(&launch.spec.etc_files, &parts.directory)?;
    let container = oci::Container {
        launch: &launch,
        root: root.path(),
        user: &user,
        workdir: &workdir,
        etc: &etc,
        cgroup_view: &cgroup_view,
        netns: parts.netns.as_ref(),
    };
    let spec = container.specification()?;
    // Open directories must not reach the container.
    drop(root);
    engine::start(&spec, &launch, user.environment(&launch.spec.env), parts)
}

fn refuse_missing_sources(mounts: &[Mount]) -> Result<(), Failure> {
    for mount in mounts {
        if let Mount::Bind { source, target, .. } = mount
            && let Err(error) = std::fs::metadata(source)
        {
            let reason = match error.kind() {
                io::ErrorKind::NotFound => "does not exist".to_owned(),
                _ => format!("cannot be used: {}", reason(error)),
            };
            let reason = format!("its source {} {reason}", source.display());
            return Err(Failure::Mount { target: target.clone(), reason });
        }
    }
    Ok(())
}

/// An error with all of its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let own = error.to_string();
        // Errors of libraries often repeat their cause.
        if !text.contains(&own) {
            text.push_str(": ");
            text.push_str(&own);
        }
        cause = error.source();
    }
    text
}

/// The words of the kernel for an error number, without the number.
fn reason(error: impl Into<io::Error>) -> String {
    let text = error.into().to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}
