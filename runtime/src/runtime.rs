//! The door of the crate: starting containers, finding them again, removing them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, DeviceProgram, Layout};
use crate::container::{Container, ended};
use crate::error::{AdoptError, OpenError, RemoveError, StartError};
use crate::exit::Exit;
use crate::logs::Reader;
use crate::record::{Directory, Launch, State};
use crate::remove;
use crate::shim::{self, Program};
use crate::spec::{ContainerSpec, Network};

/// Where a runtime keeps what it owns.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Directory of the containers, absolute; made if missing, mode 0700. Not on overlayfs.
    pub root: PathBuf,
    /// Cgroup below which each container gets its own, relative to every hierarchy's mount:
    /// `swarm` or `swarm/node-1`.
    pub cgroup_parent: String,
    /// The program that answers to `shim` by calling [`shim::main`].
    pub shim_executable: PathBuf,
    pub log_limits: LogLimits,
}

/// How much output of a container is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// A file is rotated when it would grow beyond this.
    pub file_bytes: u64,
    /// Files kept, the current one counted; at least 1.
    pub files: u32,
}

impl Default for LogLimits {
    /// 3 files of 10 MiB.
    fn default() -> Self {
        Self { file_bytes: 10 << 20, files: 3 }
    }
}

impl RuntimeConfig {
    /// A configuration with this same program as shim and the default log limits.
    #[must_use]
    pub fn new(root: PathBuf, cgroup_parent: String) -> Self {
        Self {
            root,
            cgroup_parent,
            shim_executable: PathBuf::from("/proc/self/exe"),
            log_limits: LogLimits::default(),
        }
    }
}

/// A directory of containers.
#[derive(Debug)]
pub struct Runtime {
    config: RuntimeConfig,
    parent: PathBuf,
    layout: Layout,
    devices: DeviceProgram,
    program: Program,
}

/// A container that an earlier process left.
#[derive(Debug)]
pub struct Found {
    pub id: String,
    pub state: FoundState,
}

/// How a found container does.
#[derive(Debug)]
pub enum FoundState {
    Running(Container),
    Exited(Exit),
    /// It never started, or its shim was killed. Nothing of it runs any more once
    /// [`Runtime::remove`] returns.
    Lost,
}

impl Runtime {
    /// Makes the directory and the cgroup parent and looks at what this host offers.
    ///
    /// # Errors
    /// Each names what is missing.
    pub fn open(config: RuntimeConfig) -> Result<Self, OpenError> {
        if !rustix::process::geteuid().is_root() {
            return Err(OpenError::NotRoot);
        }
        if !config.root.is_absolute() {
            return Err(OpenError::Root { root: config.root });
        }
        let parent = cgroup_parent(&config.cgroup_parent)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.root)
            .map_err(|source| OpenError::MakeRoot { root: config.root.clone(), source })?;
        let layout = Layout::detect().map_err(OpenError::Layout)?;
        layout.prepare(&parent)?;
        let devices = DeviceProgram::prepare(&layout).map_err(OpenError::Devices)?;
        let program = Program::open(&config.shim_executable)
            .map_err(|source| OpenError::Shim { program: config.shim_executable.clone(), source })?;
        Ok(Self { config, parent, layout, devices, program })
    }

    /// Starts a container; returns when its command runs.
    ///
    /// # Errors
    /// Where it did not start: what it was that failed, by name. Nothing is left behind.
    pub fn start(&self, spec: ContainerSpec) -> Result<Container, StartError> {
        let id = spec.id.clone();
        spec.validate().map_err(|invalid| StartError::Invalid { id: id.clone(), invalid })?;
        self.make_directory(&id)?;
        let started = self.start_in_directory(spec);
        if started.is_err()
            && let Err(error) = self.remove(&id)
        {
            tracing::warn!(container.id = id, %error, "a container that failed to start is left");
        }
        started
    }

    fn make_directory(&self, id: &str) -> Result<(), StartError> {
        let directory = self.directory(id);
        let made = DirBuilder::new().mode(0o700).create(directory.path());
        made.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => StartError::Exists { id: id.to_owned() },
            _ => StartError::Prepare { id: id.to_owned(), what: "its directory", source },
        })
    }

    fn start_in_directory(&self, mut spec: ContainerSpec) -> Result<Container, StartError> {
        let id = spec.id.clone();
        let directory = self.directory(&id);
        let prepare = |what| {
            let id = id.clone();
            move |source| StartError::Prepare { id, what, source }
        };
        let shim = shim::spawn(&self.program, &directory, self.config.log_limits).map_err(|source| {
            StartError::Shim { id: id.clone(), program: self.program.name().to_owned(), source }
        })?;
        // The shim loads while its directory and its cgroup are made.
        let network = std::mem::take(&mut spec.network);
        let cgroup = self.layout.cgroup(&self.parent, &id);
        cgroup
            .create(&spec.resources, &self.devices)
            .map_err(|source| StartError::Cgroup { id: id.clone(), source })?;
        let launch = Launch {
            spec,
            private_network: matches!(network, Network::Netns(_)),
            cgroup,
            shim: shim.process(),
        };
        launch.write(&directory).map_err(prepare("its directory"))?;
        let netns = match &network {
            Network::Netns(netns) => Some(netns.as_fd()),
            Network::Host => None,
        };
        let unified =
            launch.cgroup.open_unified().map_err(|source| StartError::Cgroup { id: id.clone(), source })?;
        let (pidfd, init) = shim.launch(&id, netns, unified.as_ref().map(AsFd::as_fd))?;
        Ok(Container { id, directory, cgroup: launch.cgroup, init, shim: pidfd })
    }

    /// Finds the containers that an earlier process started in this directory.
    ///
    /// # Errors
    /// Where the directory cannot be read. A container whose files cannot be read is `Lost`.
    pub fn adopt(&self) -> Result<Vec<Found>, AdoptError> {
        let path = &self.config.root;
        let failed = |source| AdoptError { path: path.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(id) = name.to_str().filter(|id| ContainerSpec::is_id(id)) else {
                continue;
            };
            let state = self.find(id).unwrap_or_else(|error| {
                tracing::warn!(container.id = id, %error, "a container's files cannot be read");
                FoundState::Lost
            });
            found.push(Found { id: id.to_owned(), state });
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    fn find(&self, id: &str) -> io::Result<FoundState> {
        let directory = self.directory(id);
        if let Some(exit) = Exit::read(&directory)? {
            return Ok(FoundState::Exited(exit));
        }
        let Some(State { shim, init }) = State::read(&directory)? else {
            return Ok(FoundState::Lost);
        };
        match shim.open()? {
            Some(shim) if !ended(shim.as_fd())? => Ok(FoundState::Running(Container {
                id: id.to_owned(),
                cgroup: self.cgroup(&directory, id),
                directory,
                init,
                shim,
            })),
            // It may have written the record between our two looks.
            _ => Ok(Exit::read(&directory)?.map_or(FoundState::Lost, FoundState::Exited)),
        }
    }

    /// Removes a container with everything of it, ending it first if it runs. A container that
    /// does not exist is fine.
    ///
    /// # Errors
    /// Where something is left. Trying again is safe.
    pub fn remove(&self, id: &str) -> Result<(), RemoveError> {
        if !ContainerSpec::is_id(id) {
            return Err(RemoveError::Id(id.to_owned()));
        }
        let directory = self.directory(id);
        let shim = |source| RemoveError::Shim { id: id.to_owned(), source };
        // An unreadable record must not keep the rest from being removed.
        match State::read(&directory) {
            Ok(Some(state)) => shim::end(state.shim, Some(state.init)).map_err(shim)?,
            Ok(None) | Err(_) => {
                if let Ok(launch) = Launch::read(&directory) {
                    shim::end(launch.shim, None).map_err(shim)?;
                }
            }
        }
        self.cgroup(&directory, id)
            .destroy()
            .map_err(|source| RemoveError::Cgroup { id: id.to_owned(), source })?;
        remove::tree(&self.config.root, id)
            .map_err(|source| RemoveError::Directory { id: id.to_owned(), source })
    }

    /// Reads a container's output, also after it has ended, until it is removed.
    #[must_use]
    pub fn log_reader(&self, id: &str, options: crate::logs::ReadOptions) -> Reader {
        Reader::new(self.directory(id).logs(), options)
    }

    /// Removes the cgroup parent where no container is left, for a runtime that is not to be used
    /// again.
    pub fn remove_cgroup_parent(&self) {
        self.layout.remove(&self.parent);
    }

    /// The cgroup that the container was started in; where that was not written down any more,
    /// the one that this configuration gives it.
    fn cgroup(&self, directory: &Directory, id: &str) -> Cgroup {
        match Launch::read(directory) {
            Ok(launch) => launch.cgroup,
            Err(_) => self.layout.cgroup(&self.parent, id),
        }
    }

    fn directory(&self, id: &str) -> Directory {
        Directory::new(self.config.root.join(id))
    }
}

/// The parent as a path that can only lead down.
fn cgroup_parent(parent: &str) -> Result<PathBuf, OpenError> {
    let path = Path::new(parent);
    let only_down = path.components().all(|part| matches!(part, Component::Normal(_)));
    if only_down && !parent.is_empty() {
        Ok(path.to_owned())
    } else {
        Err(OpenError::CgroupParent { parent: parent.to_owned() })
    }
}
