//! Whiteouts as the kernel's overlayfs understands them, in a mount namespace that ends with its thread.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use swarm_image::Compression;

use crate::support::{Header, Host, Tar};

/// What `look` sees of the layers, merged.
fn merged<T: Send>(dir: &Path, layers: &[PathBuf], look: impl FnOnce(&Path) -> T + Send) -> T {
    let [mount, upper, work] = ["merged", "upper", "work"].map(|name| dir.join(name));
    for dir in [&mount, &upper, &work] {
        fs::create_dir(dir).unwrap();
    }
    let lower: Vec<_> = layers.iter().rev().map(|layer| layer.to_str().unwrap()).collect();
    let (upper, work) = (upper.to_str().unwrap(), work.to_str().unwrap());
    let options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: this thread shares no file descriptors or working directory that others rely on changing with it.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let options = CString::new(options).unwrap();
            rustix::mount::mount("overlay", &mount, "overlay", MountFlags::empty(), Some(options.as_c_str()))
                .unwrap();
            look(&mount)
        });
        thread.join().unwrap()
    })
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_else() {
    let host = Host::new();
    let base = Tar::default()
        .file("keep", b"base")
        .file("gone", b"base")
        .file("dir/a", b"base")
        .file("dir/b", b"base")
        .file("opaque/old", b"base")
        .file("replaced/old", b"base")
        .file("recreated/old", b"base")
        .file("file-now/x", b"base");
    let top = Tar::default()
        .file(".wh.gone", b"")
        .file("dir/.wh.a", b"")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"top")
        // Some builders remove a directory and create it anew in one layer, in either order.
        .file(".wh.replaced", b"")
        .dir("replaced")
        .file("replaced/new", b"top")
        .file("recreated/new", b"top")
        .file(".wh.recreated", b"")
        .file(".wh.file-now", b"")
        .file("file-now", b"top")
        .file(".wh..wh.plnk/1.2", b"bookkeeping of AUFS")
        .file(".wh.never-there", b"");
    let layers = host.unpack_all(&[base.end(), top.end()], Compression::Gzip).unwrap();
    merged(host.dir.path(), &layers, |root| {
        assert_eq!(names(root), ["dir", "file-now", "keep", "opaque", "recreated", "replaced"]);
        assert_eq!(names(&root.join("dir")), ["b"]);
        assert_eq!(names(&root.join("opaque")), ["new"]);
        assert_eq!(names(&root.join("replaced")), ["new"]);
        assert_eq!(names(&root.join("recreated")), ["new"]);
        assert_eq!(fs::read(root.join("file-now")).unwrap(), b"top");
        fs::write(root.join("keep"), b"written").unwrap();
    });
    assert_eq!(fs::read(layers[0].join("keep")).unwrap(), b"base", "lower layers are never written");
}

#[test]
fn the_directories_of_all_layers_merge() {
    let host = Host::new();
    let mode = |mode| Header { mode, ..Header::of(b'5') };
    let layers: Vec<Vec<u8>> = (0..10)
        .map(|n| {
            let layer = Tar::default().entry(&mode(0o700 + n), "etc", "", b"");
            layer.file(&format!("etc/{n}"), b"").file("etc/last", n.to_string().as_bytes()).end()
        })
        .collect();
    let layers = host.unpack_all(&layers, Compression::Zstd).unwrap();
    merged(host.dir.path(), &layers, |root| {
        assert_eq!(names(&root.join("etc")).len(), 11);
        assert_eq!(fs::read(root.join("etc/last")).unwrap(), b"9");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(root.join("etc")).unwrap());
        assert_eq!(mode & 0o777, 0o711, "the topmost layer's");
    });
}
