//! Unpacking: what must be preserved, what must be refused, and what must never be touched.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use swarm_image::{Compression, Digest, LayerError, LayerStore};

use crate::support::{Header, Host, Image, Tar, chain, compress};

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => Some(value[..length].to_vec()),
        Err(rustix::io::Errno::NODATA) => None,
        Err(errno) => panic!("{}: {errno}", path.display()),
    }
}

#[test]
fn everything_an_entry_has_is_preserved() {
    let host = Host::new();
    let owned = |kind, mode| Header { mode, uid: 1000, gid: 2000, mtime: 1_234_567, ..Header::of(kind) };
    // Version 2 of vfs_cap_data: cap_net_bind_service, permitted and effective; it holds a newline on purpose.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Tar::default()
        .entry(&owned(b'5', 0o1777), "tmp/", "", b"")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ])
        .entry(&owned(b'0', 0o4755), "tmp/suid", "", b"content")
        .hardlink("tmp/other", "tmp/suid")
        .entry(&owned(b'2', 0o777), "tmp/link", "../nowhere", b"")
        .entry(&owned(b'6', 0o600), "tmp/pipe", "", b"")
        .entry(&Header { device: (1, 3), ..owned(b'3', 0o666) }, "tmp/null", "", b"")
        .entry(&Header { device: (7, 99), ..owned(b'4', 0o660) }, "tmp/block", "", b"")
        .file("implied/dir/file", b"x")
        .entry(&owned(b'5', 0o700), "./", "", b"");
    let root = host.unpack(layer).unwrap();

    let stat = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    let suid = stat("tmp/suid");
    assert_eq!((suid.uid(), suid.gid(), suid.mode() & 0o7777, suid.mtime()), (1000, 2000, 0o4755, 1_234_567));
    assert_eq!((suid.ino(), suid.nlink()), (stat("tmp/other").ino(), 2));
    assert_eq!(fs::read(root.join("tmp/other")).unwrap(), b"content");
    assert_eq!(xattr(&root.join("tmp/suid"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&root.join("tmp/suid"), "user.note").unwrap(), b"a\nb");
    assert_eq!(xattr(&root.join("tmp/suid"), "trusted.overlay.redirect"), None, "steers overlayfs");
    assert_eq!(xattr(&root.join("tmp/suid"), "security.selinux"), None, "belongs to the host");
    assert_eq!(fs::read_link(root.join("tmp/link")).unwrap(), Path::new("../nowhere"));
    let link = stat("tmp/link");
    assert_eq!((link.uid(), link.gid(), link.mtime()), (1000, 2000, 1_234_567));
    let pipe = stat("tmp/pipe");
    assert!(pipe.file_type().is_fifo() && pipe.mode() & 0o7777 == 0o600);
    let null = stat("tmp/null");
    assert!(null.file_type().is_char_device() && null.mode() & 0o7777 == 0o666);
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(stat("tmp/block").rdev(), rustix::fs::makedev(7, 99));
    let tmp = stat("tmp");
    assert_eq!((tmp.mode() & 0o7777, tmp.mtime()), (0o1777, 1_234_567), "after its content was created");
    assert_eq!((stat("implied/dir").mode() & 0o7777, stat("implied").uid()), (0o755, 0));
    assert_eq!(stat("").mode() & 0o7777, 0o700);
}

#[test]
fn every_compression_yields_the_same_layer_once() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let host = Host::new();
        let base = Tar::default().file("a", b"1").end();
        let top = Tar::default().file("b", &[7; 100_000]).end();
        let layers = [base.clone(), top, base];
        let paths = host.unpack_all(&layers, compression).unwrap();
        assert_eq!(paths.len(), 3);
        assert_eq!(paths[0], paths[2], "the same layer twice is one directory");
        assert_eq!(fs::read(paths[1].join("b")).unwrap(), [7; 100_000]);
        let before = fs::metadata(paths[1].join("b")).unwrap().ino();
        assert_eq!(host.unpack_all(&layers, compression).unwrap(), paths);
        assert_eq!(fs::metadata(paths[1].join("b")).unwrap().ino(), before, "not unpacked again");
    }
}

/// The layer must fail with a message, leaving nothing, and the canary outside must be as it was.
#[track_caller]
fn refused(layer: Tar, says: &str) {
    refused_bytes(layer.end(), says);
}

#[track_caller]
fn refused_bytes(layer: Vec<u8>, says: &str) {
    let host = Host::new();
    let error = host.unpack_all(&[layer], Compression::None).unwrap_err();
    let text = chain(&error);
    assert!(text.contains(says), "{text}");
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn paths_with_dots_are_refused() {
    refused(Tar::default().file("../canary", b"x"), "\"../canary\" leads out of its directory");
    refused(Tar::default().file("a/../../canary", b"x"), "leads out of its directory");
    refused(Tar::default().file("/../canary", b"x"), "leads out of its directory");
    refused(Tar::default().dir("a/.."), "leads out of its directory");
    refused(Tar::default().pax(&[("path", b"a/../../../canary")]).file("ok", b"x"), "leads out");
    refused(Tar::default().hardlink("a", "../canary"), "hard link whose target leads out");
    refused(Tar::default().file(".", b"x"), "would replace the root");
    refused(Tar::default().symlink("./", "/tmp"), "would replace the root");
}

/// A directory outside the layer, with a file that must stay as it is.
struct Canary {
    dir: tempfile::TempDir,
}

impl Canary {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("canary"), b"alive").unwrap();
        fs::set_permissions(dir.path().join("canary"), fs::Permissions::from_mode(0o640)).unwrap();
        Self { dir }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    #[track_caller]
    fn check(&self) {
        let names: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["canary"]);
        let file = self.dir.path().join("canary");
        assert_eq!(fs::read(&file).unwrap(), b"alive");
        let stat = fs::metadata(&file).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.nlink(), stat.uid()), (0o640, 1, 0));
    }
}

#[test]
fn links_never_lead_outside() {
    let canary = Canary::new();
    let outside = canary.path();
    let file = format!("{outside}/canary");
    let evil = Header { mode: 0o777, uid: 1, ..Header::of(b'0') };
    let dots = "../".repeat(20);
    let hostile = [
        // Written through a link to a directory: absolute, relative, and through a chain.
        Tar::default().symlink("l", outside).entry(&evil, "l/canary", "", b"dead"),
        Tar::default().symlink("l", &format!("{dots}{outside}")).entry(&evil, "l/canary", "", b"dead"),
        Tar::default().symlink("a", "/").symlink("b", "a").entry(&evil, &format!("b{file}"), "", b"dead"),
        Tar::default().symlink("p", "/proc/self/cwd").symlink("r", "/proc/self/root").file("r/x", b"x"),
        // Written, chmodded or opened through a link that is the file itself.
        Tar::default().symlink("l", &file).entry(&evil, "l", "", b"dead"),
        Tar::default().symlink("l", outside).entry(
            &Header { mode: 0o777, ..Header::of(b'5') },
            "l/",
            "",
            b"",
        ),
        Tar::default().symlink("l", &file).entry(&Header { uid: 1, ..Header::of(b'2') }, "l", &file, b""),
        Tar::default().symlink("l", &file).entry(&Header::of(b'6'), "l", "", b""),
        // A hard link to the outside, directly and through a link, then written.
        Tar::default().hardlink("h", &file).entry(&evil, "h", "", b"dead"),
        Tar::default().symlink("l", outside).hardlink("h", "l/canary").entry(&evil, "h", "", b"dead"),
        Tar::default().symlink("l", &file).hardlink("h", "l").entry(&evil, "h", "", b"dead"),
        Tar::default().hardlink("h", &file),
        Tar::default().symlink("l", outside).hardlink("h", "l/canary"),
        Tar::default().symlink("l", &file).hardlink("h", "l"),
        // Whiteouts and opaque markers through a link.
        Tar::default().symlink("l", outside).file("l/.wh.canary", b""),
        Tar::default().symlink("l", outside).file("l/.wh..wh..opq", b""),
        // A directory that becomes a link, and is then used as a directory again.
        Tar::default().dir("d").file("d/x", b"").symlink("d", outside).entry(&evil, "d/canary", "", b"dead"),
        Tar::default().symlink("d", outside).dir("d").entry(&evil, "d/canary", "", b"dead"),
        // Links that lead nowhere or in circles.
        Tar::default().symlink("l", "l").file("l/x", b"x"),
        Tar::default().symlink("l", "/no/such/place").file("l/x", b"x"),
    ];
    for (number, layer) in hostile.into_iter().enumerate() {
        let host = Host::new();
        match host.unpack(layer) {
            Ok(root) => assert!(root.exists()),
            Err(error @ (LayerError::Refused { .. } | LayerError::Entry { .. })) => {
                assert_eq!(host.leftovers(), Vec::<String>::new(), "{number}: {error}");
            }
            Err(other) => panic!("layer {number}: {}", chain(&other)),
        }
        canary.check();
    }
}

#[test]
fn links_are_followed_as_in_a_container() {
    let host = Host::new();
    let layer = Tar::default()
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr")
        .symlink("up", "../../../usr/lib")
        .file("lib/a", b"1")
        .file("abs/lib/new/b", b"2")
        .file("up/c", b"3")
        .file("/absolute", b"4")
        .hardlink("hard", "/absolute");
    let root = host.unpack(layer).unwrap();
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    assert_eq!([read("usr/lib/a"), read("usr/lib/new/b"), read("usr/lib/c")], ["1", "2", "3"]);
    assert_eq!([read("absolute"), read("hard")], ["4", "4"]);
}

#[test]
fn the_last_of_several_entries_counts() {
    let host = Host::new();
    let layer = Tar::default()
        .file("a", b"first")
        .file("a", b"second")
        .dir("d")
        .file("d/inside", b"x")
        .file("d", b"now a file")
        .symlink("l", "a")
        .dir("l")
        .file("l/x", b"in a real directory")
        .dir("kept")
        .file("kept/file", b"1")
        .entry(&Header { mode: 0o700, ..Header::of(b'5') }, "kept", "", b"");
    let root = host.unpack(layer).unwrap();
    assert_eq!(fs::read(root.join("a")).unwrap(), b"second");
    assert_eq!(fs::read(root.join("d")).unwrap(), b"now a file");
    assert!(fs::symlink_metadata(root.join("l")).unwrap().is_dir());
    assert_eq!(fs::read(root.join("kept/file")).unwrap(), b"1");
    assert_eq!(fs::metadata(root.join("kept")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(host.leftovers().len(), 1, "the replaced directory is gone");
}

#[test]
fn impossible_entries_are_refused() {
    refused(Tar::default().file("f", b"").file("f/x", b""), "below something that is not a directory");
    refused(Tar::default().hardlink("h", "nothing"), "not in the layer");
    refused(Tar::default().dir("d").hardlink("h", "d"), "hard link to a directory");
    refused(Tar::default().hardlink("h", "/"), "hard link to the root");
    refused(Tar::default().symlink("l", ""), "symbolic link to nothing");
    refused(Tar::default().file(".wh.", b""), "whiteout of no file");
    refused(Tar::default().file("a/.wh...", b""), "whiteout of no file");
    refused(Tar::default().file(".wh.a/b", b""), "below a whiteout");
    refused(
        Tar::default().pax(&[("path", "d/".repeat(300).as_bytes())]).file("x", b""),
        "256 directories deep",
    );
    refused(Tar::default().pax(&[("path", &[b'n'; 300])]).file("x", b""), "name too long");
    refused(Tar::default().entry(&Header::of(b'S'), "sparse", "", b""), "sparse files are not supported");
    refused(Tar::default().pax(&[("size", b"9000000000000000000")]).file("x", b""), "truncated");
}

#[test]
fn depth_cannot_be_smuggled_in_through_links() {
    let deep = "d/".repeat(50);
    let mut layer = Tar::default().dir(&deep[..99]).symlink("l0", &deep[..99]);
    for step in 1..40 {
        let inside = format!("l{}/{}", step - 1, "d/".repeat(40));
        layer = layer.file(&format!("{inside}x"), b"").symlink(&format!("l{step}"), &inside);
    }
    refused(layer, "directories deep");
}

#[test]
fn a_truncated_layer_is_an_error_wherever_it_is_cut() {
    let whole = Tar::default().dir("d").file("d/file", &[7; 3000]).symlink("l", "d").end();
    let expected = Digest::of(&whole);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let packed = compress(&whole, compression);
        let host = Host::new();
        for cut in [0, 1, 100, 511, 512, 513, 1024, 1500, 3900, 4608, packed.len() - 1] {
            if cut >= packed.len() {
                continue;
            }
            let mut image = Image::with_diff_ids(std::slice::from_ref(&whole), &[expected], compression);
            image.blobs[0] = packed[..cut].to_vec();
            let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
            manifest["layers"][0]["size"] = cut.into();
            manifest["layers"][0]["digest"] = Digest::of(&packed[..cut]).to_string().into();
            image.manifest = manifest.to_string().into_bytes();
            let image = image.store(&host.store);
            let error = host.layers.unpack(&image, &host.store).unwrap_err();
            assert!(
                matches!(error, LayerError::Archive { .. } | LayerError::WrongDigest { .. }),
                "cut at {cut}: {}",
                chain(&error)
            );
            assert_eq!(host.leftovers(), Vec::<String>::new(), "cut at {cut}");
        }
    }
}

#[test]
fn content_that_is_not_what_the_configuration_states_is_refused() {
    let host = Host::new();
    let layer = Tar::default().file("a", b"1").end();
    let image = Image::with_diff_ids(&[layer], &[Digest::of(b"other")], Compression::Gzip);
    let error = host.layers.unpack(&image.store(&host.store), &host.store).unwrap_err();
    assert!(matches!(error, LayerError::WrongDigest { .. }), "{error}");
    assert_eq!(host.leftovers(), Vec::<String>::new());
    refused_bytes(b"garbage ".repeat(100), "no tar archive");
}

#[test]
fn bytes_after_the_end_marker_count_for_the_digest() {
    let host = Host::new();
    let mut layer = Tar::default().file("a", b"1").end();
    layer.extend_from_slice(&[0; 10_240]);
    layer.extend_from_slice(b"trailing");
    host.unpack_all(&[layer], Compression::Zstd).unwrap();
}

#[test]
fn callers_of_one_layer_wait_for_one_another() {
    let host = Host::new();
    let layers: Vec<Vec<u8>> =
        (0..4).map(|n| Tar::default().file(&format!("f{n}"), &vec![n; 1 << 20]).end()).collect();
    let image = Image::new(&layers, Compression::Gzip).store(&host.store);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(host.layers.unpack(&image, &host.store).unwrap().len(), 4));
        }
    });
    assert_eq!(host.leftovers().len(), 4);
}

#[test]
fn unused_layers_are_removed_and_kept_ones_stay() {
    let host = Host::new();
    let layers = [Tar::default().file("a", b"1").end(), Tar::default().file("b", b"2").end()];
    let paths = host.unpack_all(&layers, Compression::None).unwrap();
    let keep = BTreeSet::from([Digest::of(&layers[0])]);
    assert_eq!(host.layers.remove_unused(&keep).unwrap(), [Digest::of(&layers[1])]);
    assert!(paths[0].join("a").exists() && !paths[1].exists());
    assert_eq!(host.layers.remove_unused(&keep).unwrap(), []);
    assert_eq!(host.leftovers().len(), 1);
}

#[test]
fn what_a_crash_left_is_swept_and_a_store_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let staging = dir.path().join("staging");
    fs::create_dir_all(staging.join("half/root/etc")).unwrap();
    let store = LayerStore::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    assert!(matches!(LayerStore::open(dir.path()), Err(LayerError::InUse { .. })));
    drop(store);
    LayerStore::open(dir.path()).unwrap();
}
