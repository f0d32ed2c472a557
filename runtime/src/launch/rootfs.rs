//! The container's root filesystem: the image's layers under a private upper layer.
//!
//! Whatever is looked up here is resolved inside the root, as the image is not to be trusted:
//! its links may point anywhere.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, mkdir, mkdirat, open, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount as mount_old,
    mount_change, move_mount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{Failure, reason};
use crate::record::Directory;
use crate::spec::ContainerSpec;

/// Longest value that the kernel takes in one piece when it configures a filesystem, less the
/// closing zero.
const FSCONFIG_VALUE_LIMIT: usize = 255;
/// Most layers that the kernel stacks.
pub const LAYERS_LIMIT: usize = 500;
/// First kernel that overlayfs takes layers one by one from.
const LAYER_BY_LAYER: (u32, u32) = (6, 8);
/// Writes may skip the disk's cache flushes: the upper layer lives no longer than its container, so what a power cut
/// does to it does not matter.
const VOLATILE: &str = "volatile";
/// Longest path of a working directory, and most of its parts.
const WORKDIR_LIMIT: usize = 4096;

/// A mounted root filesystem.
#[derive(Debug)]
pub struct RootFs {
    path: PathBuf,
    directory: OwnedFd,
}

/// Gives this process a mount namespace of its own, from which nothing spreads to the host's, and
/// a place in memory for what only the launch needs.
pub fn enter_private_namespace(directory: &Directory) -> Result<(), Failure> {
    let failed = |error| Failure::Setup { step: "enter a mount namespace".to_owned(), reason: reason(error) };
    // SAFETY: the process has one thread and shares no file table with another.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(failed)?;
    // Unmounts of the host still arrive here, so the host's disks are not kept busy.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(failed)?;
    let place = directory.launch();
    mkdir(&place, Mode::RWXU).map_err(failed)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount_old("tmpfs", &place, "tmpfs", flags, c"mode=0700").map_err(failed)
}

/// Mounts the layers at `rootfs` in the container's directory.
pub fn mount(spec: &ContainerSpec, directory: &Directory) -> Result<RootFs, Failure> {
    let failed =
        |error: &dyn std::error::Error| Failure::setup("mount the image's layers (overlayfs)", error);
    let overlay = Overlay::prepare(spec, directory).map_err(|error| failed(&error))?;
    for layer in &spec.layers {
        if !layer.is_dir() {
            let reason = format!("its layer {} is not a directory", layer.display());
            return Err(Failure::Image { reason });
        }
    }
    // An older kernel is not asked: it would write its refusal to the host's log at each start.
    let mounted = if kernel_version() >= LAYER_BY_LAYER { overlay.mount() } else { Err(Errno::INVAL) };
    mounted.or_else(|_| overlay.mount_by_old_call()).map_err(|error| failed(&std::io::Error::from(error)))?;
    RootFs::open(overlay.root).map_err(|error| failed(&std::io::Error::from(error)))
}

/// Major and minor version of the running kernel; 0.0 if it does not say.
fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

struct Overlay {
    /// Top to bottom, as the kernel wants them.
    layers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    root: PathBuf,
}

/// Settings that keep an image from steering the overlay by extended attributes in its layers.
const TRUST_NO_LAYER: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

impl Overlay {
    fn prepare(spec: &ContainerSpec, directory: &Directory) -> std::io::Result<Self> {
        let [upper, work] = ["upper", "work"].map(|name| directory.join(name));
        let root = directory.launch().join("rootfs");
        for path in [&upper, &work, &root] {
            fs::create_dir(path)?;
        }
        let mut layers: Vec<PathBuf> = spec.layers.iter().rev().cloned().collect();
        if layers.is_empty() {
            // The kernel wants one. An empty image is a legal one.
            let empty = directory.launch().join("empty");
            fs::create_dir(&empty)?;
            layers.push(empty);
        }
        Ok(Self { layers, upper, work, root })
    }

    /// By the new mount interface: a value per layer, so their number and length do not matter.
    fn mount(&self) -> Result<(), Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // Kept open until the mount is made.
        let mut opened = Vec::new();
        for path in &self.layers {
            let value = short_name(path, &mut opened)?;
            fsconfig_set_string(&context, "lowerdir+", &value)?;
        }
        for (key, path) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            let value = short_name(path, &mut opened)?;
            fsconfig_set_string(&context, key, &value)?;
        }
        for (key, value) in TRUST_NO_LAYER {
            fsconfig_set_string(&context, key, value)?;
        }
        fsconfig_set_flag(&context, VOLATILE)?;
        fsconfig_create(&context)?;
        // Device nodes belong in /dev; one that an image brings along must not open anything.
        let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mounted, "", CWD, &self.root, flags)
    }

    fn mount_by_old_call(&self) -> Result<(), Errno> {
        // Short names for the layers, so that many fit into the page of options.
        let mut opened = Vec::new();
        let mut lower = Vec::new();
        for path in &self.layers {
            let layer = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            lower.push(descriptor_name(&layer));
            opened.push(layer);
        }
        let mut options = format!(
            "lowerdir={},upperdir={},workdir={},{VOLATILE}",
            lower.join(":"),
            self.upper.display(),
            self.work.display()
        );
        for (key, value) in TRUST_NO_LAYER {
            options.push_str(&format!(",{key}={value}"));
        }
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        mount_old("overlay", &self.root, "overlay", MountFlags::NODEV, options.as_c_str())
    }
}

/// The path, or where it is too long for the kernel a name by its open file.
fn short_name(path: &Path, opened: &mut Vec<OwnedFd>) -> Result<String, Errno> {
    if let Some(text) = path.to_str()
        && text.len() <= FSCONFIG_VALUE_LIMIT
        && !text.contains('\\')
    {
        return Ok(text.to_owned());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    let name = descriptor_name(&file);
    opened.push(file);
    Ok(name)
}

fn descriptor_name(file: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

impl RootFs {
    fn open(path: PathBuf) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(&path, flags, Mode::empty())?;
        Ok(Self { path, directory })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a path of the image; links are followed as if the root were the container's.
    pub fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        openat2(&self.directory, path, flags, Mode::empty(), inside)
    }

    /// Refuses images where a directory that the runtime fills is something else: device nodes
    /// and links made "in /dev" would be made wherever a link points.
    pub fn refuse_redirected_mount_points(&self) -> Result<(), Failure> {
        for name in ["dev", "proc", "sys"] {
            let found = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW);
            let what = match found.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Ok(FileType::Directory) | Err(Errno::NOENT) => continue,
                Ok(FileType::Symlink) => "a symbolic link".to_owned(),
                Ok(_) => "not a directory".to_owned(),
                Err(error) => reason(error),
            };
            let reason = format!("/{name} is {what}, and the runtime mounts there");
            return Err(Failure::Image { reason });
        }
        Ok(())
    }

    /// Makes the working directory as far as it is missing, and tells where it really is.
    pub fn make_workdir(&self, spec: &ContainerSpec) -> Result<PathBuf, Failure> {
        let refused = |reason: String| Failure::Workdir { path: spec.cwd.clone(), reason };
        if spec.cwd.len() > WORKDIR_LIMIT {
            return Err(refused(format!("longer than {WORKDIR_LIMIT} bytes")));
        }
        let mut path = PathBuf::from("/");
        let mut directory =
            self.resolve(&path, OFlags::PATH | OFlags::DIRECTORY).map_err(|error| refused(reason(error)))?;
        for part in Path::new(&spec.cwd).components().skip(1) {
            path.push(part);
            directory = self
                .open_or_make(&path, &directory, part.as_os_str())
                .map_err(|error| refused(reason(error)))?;
        }
        let real = self.inside(&directory).map_err(&refused)?;
        // Not there yet: what is there once the container runs are processes and their open files.
        if ["/proc", "/sys"].iter().any(|kernel| real.starts_with(kernel)) {
            return Err(refused(format!("it lies in {}, which the kernel fills", real.display())));
        }
        Ok(real)
    }

    fn open_or_make(&self, path: &Path, parent: &OwnedFd, name: &std::ffi::OsStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve(path, flags) {
            Err(Errno::NOENT) => {
                mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(|error| match error {
                    // A link to nothing.
                    Errno::EXIST => Errno::NOTDIR,
                    other => other,
                })?;
                self.resolve(path, flags)
            }
            other => other,
        }
    }

    /// The path of an open file of the image as the container sees it.
    fn inside(&self, file: &OwnedFd) -> Result<PathBuf, String> {
        let host = fs::read_link(descriptor_name(file)).map_err(reason)?;
        let root = fs::read_link(descriptor_name(&self.directory)).map_err(reason)?;
        match host.strip_prefix(&root) {
            Ok(inside) => Ok(Path::new("/").join(inside)),
            Err(_) => Err("it lies outside of the container".to_owned()),
        }
    }
}
