//! The last steps of a container's first process, from a finished root filesystem to its command.
//!
//! Capabilities are dropped and `no_new_privs` is set before; this ties the process to its shim,
//! gives it clean signals, installs the system call filter and replaces it by the command.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;

use super::reaper;
use super::seccomp::Program;
use super::{Failure, Report};
use crate::spec::ContainerSpec;
use crate::sys;

/// Where commands are looked for if the environment does not say. Docker's value.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs one command. Everything that can be computed ahead is.
#[derive(Clone)]
pub struct ContainerExecutor {
    command: String,
    search_path: String,
    /// Paths to try, in order.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    filter: Program,
    /// The command gets a reaper.
    init: bool,
    /// Numbers, not owned files: libcontainer copies the executor and forks.
    shim: RawFd,
    report: RawFd,
}

impl ContainerExecutor {
    pub fn new(
        spec: &ContainerSpec,
        environment: Vec<String>,
        filter: Program,
        shim: RawFd,
        report: RawFd,
    ) -> Result<Self, Failure> {
        let command = spec.args[0].clone();
        let search_path = environment
            .iter()
            .rev()
            .find_map(|entry| entry.strip_prefix("PATH="))
            .unwrap_or(DEFAULT_PATH)
            .to_owned();
        let candidates = if command.contains('/') {
            vec![command.clone()]
        } else {
            let directories = search_path.split(':').filter(|d| !d.is_empty());
            directories.map(|directory| format!("{directory}/{command}")).collect()
        };
        Ok(Self {
            candidates: c_strings(candidates)?,
            arguments: c_strings(spec.args.clone())?,
            environment: c_strings(environment)?,
            command,
            search_path,
            filter,
            init: spec.init,
            shim,
            report,
        })
    }

    /// The kernel drops the tie when the process changes its user later, so the runtime also looks
    /// for orphans.
    fn tie_to_shim(&self) -> Result<(), Failure> {
        // SAFETY: the launching process keeps this file open as long as it lives, and this
        // process inherited it.
        let shim = unsafe { BorrowedFd::borrow_raw(self.shim) };
        super::die_with(shim)
    }

    fn run(&self) -> Failure {
        let prepared = self.tie_to_shim().and_then(|()| {
            sys::reset_signals().map_err(|error| Failure::setup("reset signals", &error))?;
            self.filter.install().map_err(|error| Failure::setup("install the system call filter", &error))
        });
        let prepared = prepared.and_then(|()| match self.init {
            true => reaper::continue_in_child(self.report)
                .map_err(|error| Failure::setup("start the reaper", &error)),
            false => Ok(()),
        });
        match prepared {
            Ok(()) => self.execute(),
            Err(failure) => failure,
        }
    }

    /// Tries the candidates as a shell does; returns only with the reason why none runs.
    fn execute(&self) -> Failure {
        let mut denied = None;
        for candidate in &self.candidates {
            match nix::unistd::execve(candidate, &self.arguments, &self.environment) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    let path = candidate.to_string_lossy();
                    if std::fs::symlink_metadata(&*path).is_ok() {
                        return self.not_executable(&format!(
                            "{path} exists, but the interpreter or loader that it names does not"
                        ));
                    }
                }
                Err(Errno::EACCES) => denied = Some(candidate.to_string_lossy().into_owned()),
                Err(error) => return self.not_executable(&explain(error)),
                Ok(never) => match never {},
            }
        }
        match denied {
            Some(path) => {
                self.not_executable(&format!("{path} is a directory or the user has no right to execute it"))
            }
            None => self.not_found(),
        }
    }

    fn not_executable(&self, reason: &str) -> Failure {
        Failure::NotExecutable { command: self.command.clone(), reason: reason.to_owned() }
    }

    fn not_found(&self) -> Failure {
        let reason = if self.command.contains('/') {
            "does not exist in the image".to_owned()
        } else {
            format!("is in no directory of the image's PATH ({})", self.search_path)
        };
        Failure::CommandNotFound { command: self.command.clone(), reason }
    }
}

impl Executor for ContainerExecutor {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let failure = self.run();
        // SAFETY: inherited from the launching process, which keeps it open until it ends; this
        // process ends right after, so nothing else uses the number.
        let report = unsafe { ManuallyDrop::new(File::from_raw_fd(self.report)) };
        Report::Failed(failure.clone()).send(&*report);
        Err(ExecutorError::Other(failure.to_string()))
    }

    /// Nothing to check ahead: what fails to run says why.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The environment is passed to the command in the order of the specification, instead of
    /// through this process's own.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

fn explain(error: Errno) -> String {
    match error {
        Errno::ENOEXEC => "it is not a program for this machine (or a script without a #! line)".to_owned(),
        other => super::reason(std::io::Error::from(other)),
    }
}

fn c_strings(strings: Vec<String>) -> Result<Vec<CString>, Failure> {
    strings
        .into_iter()
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::setup("pass arguments and environment", &error))
}
