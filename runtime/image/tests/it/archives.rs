//! Docker archives and OCI layouts, whole and broken.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use swarm_image::archive::{self, ImportError, ImportedImage};
use swarm_image::media_type::{OCI_INDEX, OCI_MANIFEST};
use swarm_image::{Compression, ContentStore, Descriptor, Digest, ImageManifest, Platform};

use crate::support::{Image, Tar, chain, compress, describe};

struct Fixture {
    store: ContentStore,
    dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    Fixture { store: ContentStore::open(dir.path().join("content")).unwrap(), dir }
}

fn sample(compression: Compression) -> Image {
    let layers =
        [Tar::default().file("etc/os", b"demo").end(), Tar::default().file("app", &[7; 200_000]).end()];
    Image::new(&layers, compression)
}

/// What old Docker versions write: a directory per layer, a shared layer being a symbolic link.
fn docker_archive(image: &Image, tags: &Value) -> Vec<u8> {
    let mut tar = Tar::default();
    let mut paths = Vec::new();
    for (number, layer) in image.blobs.iter().enumerate() {
        tar = tar
            .dir(&format!("layer{number}/"))
            .file(&format!("layer{number}/VERSION"), b"1.0")
            .file(&format!("layer{number}/json"), b"{}")
            .file(&format!("layer{number}/layer.tar"), layer)
            .dir(&format!("again{number}/"))
            .symlink(&format!("again{number}/layer.tar"), &format!("../layer{number}/layer.tar"));
        paths.push(format!("again{number}/layer.tar"));
    }
    let list = json!([{"Config": "config.json", "RepoTags": tags, "Layers": paths}]).to_string();
    tar.file("config.json", &image.config)
        .file("repositories", b"{}")
        .file("manifest.json", list.as_bytes())
        .end()
}

fn entry(descriptor: &Descriptor, annotations: &Value) -> Value {
    let mut entry = serde_json::to_value(descriptor).unwrap();
    entry["annotations"] = annotations.clone();
    entry
}

fn index(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string().into_bytes()
}

fn blobs<'a>(mut tar: Tar, blobs: impl IntoIterator<Item = &'a Vec<u8>>) -> Tar {
    for blob in blobs {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar
}

fn layout(image: &Image, index: &[u8]) -> Tar {
    let tar = Tar::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    blobs(tar, image.blobs.iter().chain([&image.config, &image.manifest])).file("index.json", index)
}

fn named(image: &Image, name: &str) -> Vec<u8> {
    index(&[entry(&image.target(), &json!({"io.containerd.image.name": name}))])
}

fn names(image: &ImportedImage) -> Vec<String> {
    image.names.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn imported(store: &ContentStore, bytes: &[u8]) -> Vec<ImportedImage> {
    let import = archive::import(bytes, store).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let listed: Vec<Digest> = store.list().unwrap().into_iter().map(|(digest, _)| digest).collect();
    let mut written = import.written;
    written.sort_unstable();
    assert_eq!(written, listed, "what was written is what is there");
    for image in &import.images {
        let loaded = ImageManifest::load(store, &image.target, &Platform::current()).unwrap();
        assert!(loaded.blobs().all(|blob| image.blobs.contains(blob)));
        assert_eq!(image.blobs.last(), Some(&image.target));
    }
    import.images
}

#[test]
fn docker_archives_become_oci_images() {
    for compression in [Compression::None, Compression::Gzip] {
        let f = fixture();
        let bytes = docker_archive(&sample(compression), &json!(["shop/web:1", "web:latest"]));
        let images = imported(&f.store, &bytes);
        assert_eq!(names(&images[0]), ["docker.io/shop/web:1", "docker.io/library/web:latest"]);
        assert_eq!(images[0].target.media_type, OCI_MANIFEST);
        assert_eq!(images[0].platforms, [Platform { variant: String::new(), ..Platform::current() }]);
        let again = archive::import(&bytes[..], &f.store).unwrap();
        assert_eq!((again.images, again.written), (images, vec![]), "the same bytes, the same digests");
    }
}

#[test]
fn an_archive_may_be_compressed_as_a_whole_and_nameless() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let f = fixture();
        let bytes = compress(&docker_archive(&sample(Compression::None), &Value::Null), compression);
        assert_eq!(names(&imported(&f.store, &bytes)[0]), Vec::<String>::new());
    }
}

#[test]
fn oci_layouts_are_read_from_streams_and_directories() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let f = fixture();
        let image = sample(compression);
        let bytes = layout(&image, &named(&image, "docker.io/library/web:1")).end();
        let images = imported(&f.store, &bytes);
        assert_eq!(names(&images[0]), ["docker.io/library/web:1"]);
        assert_eq!(images[0].target, image.target());

        let other = fixture();
        let directory = other.dir.path().join("layout");
        tar::Archive::new(&bytes[..]).unpack(&directory).unwrap();
        let import = archive::import_path(&directory, &other.store).unwrap();
        assert_eq!(import.images, images);
        let file = other.dir.path().join("file.tar");
        fs::write(&file, &bytes).unwrap();
        assert_eq!(archive::import_path(&file, &other.store).unwrap().images, images);
    }
}

#[test]
fn modern_docker_archives_are_both_and_all_their_names_count() {
    let f = fixture();
    let image = sample(Compression::Gzip);
    let path = |bytes: &Vec<u8>| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let layers: Vec<String> = image.blobs.iter().map(path).collect();
    let tags = ["docker.io/library/web:1", "web:stable"];
    let list = json!([{"Config": path(&image.config), "RepoTags": tags, "Layers": layers}]).to_string();
    let target = image.target();
    let index = index(&[
        entry(&target, &json!({"io.containerd.image.name": "docker.io/library/web:1"})),
        entry(&target, &json!({"org.opencontainers.image.ref.name": "ghcr.io/a/web:2"})),
        entry(&target, &json!({"org.opencontainers.image.ref.name": "only-a-tag"})),
    ]);
    let images = imported(&f.store, &layout(&image, &index).file("manifest.json", list.as_bytes()).end());
    assert_eq!(images.len(), 1);
    let expected =
        ["docker.io/library/web:1", "docker.io/library/web:stable", "ghcr.io/a/web:2"].map(str::to_owned);
    let mut found = names(&images[0]);
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn an_index_is_kept_even_if_only_some_platforms_are_there() {
    let f = fixture();
    let image = sample(Compression::Zstd);
    let absent = describe(OCI_MANIFEST, b"not in the archive");
    let nested = index(&[
        entry(&absent, &Value::Null),
        entry(&image.target(), &Value::Null),
        json!({"mediaType": OCI_MANIFEST, "digest": absent.digest, "size": 3,
               "platform": {"os": "unknown", "architecture": "unknown"}}),
    ]);
    let outer = index(&[entry(&describe(OCI_INDEX, &nested), &json!({"io.containerd.image.name": "a/b:c"}))]);
    let bytes = blobs(layout(&image, &outer), [&nested]).end();
    let import = archive::import(&bytes[..], &f.store).unwrap();
    assert_eq!(import.images[0].target.digest, Digest::of(&nested));
    assert_eq!(import.images[0].blobs.len(), 5);
}

/// The import must fail, saying so, and leave the store empty.
#[track_caller]
fn refused(bytes: &[u8], says: &str) {
    let f = fixture();
    let error = archive::import(bytes, &f.store).unwrap_err();
    let text = chain(&error);
    assert!(text.contains(says), "{text}");
    assert_eq!(f.store.list().unwrap(), []);
}

#[test]
fn garbage_is_refused() {
    refused(b"", "holds no image");
    refused(b"certainly not an archive", "truncated");
    refused(&b"certainly not an archive".repeat(100), "no tar archive");
    refused(&[&[0x1f, 0x8b][..], &[7; 1000]].concat(), "cannot read");
    refused(&Tar::default().file("hello.txt", b"hi").end(), "holds no image");
    refused(&Tar::default().file("manifest.json", b"{").end(), "`manifest.json` in the archive is malformed");
    refused(&Tar::default().file("manifest.json", b"[]").end(), "lists no image");
    refused(&Tar::default().file("index.json", b"{}").end(), "`oci-layout` in the archive is missing");
    let image = sample(Compression::None);
    refused(&layout(&image, b"nonsense").end(), "malformed");
    refused(&layout(&image, &index(&[])).end(), "names no image");
    refused(&layout(&image, &named(&image, "Not A Name")).end(), "invalid name");
    refused(&layout(&image, &named(&image, "a:b")).file("index.json", b"").end(), "there twice");
    refused(&Tar::default().file("../manifest.json", b"[]").end(), "leads out of the archive");
    refused(&Tar::default().symlink("x", "../../etc/passwd").end(), "leads out of the archive");
    refused(&Tar::default().file("manifest.json", &vec![b' '; 5 << 20]).end(), "at most");
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let image = sample(Compression::Gzip);
    let good = named(&image, "a:b");
    let layer = Digest::of(&image.blobs[1]);
    let mut partial = sample(Compression::Gzip);
    partial.blobs.pop();
    refused(&layout(&partial, &good).end(), &layer.to_string());

    let damaged = blobs(Tar::default(), [&image.config])
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file(&format!("blobs/sha256/{}", layer.hex()), b"other bytes")
        .file("index.json", &good);
    refused(&damaged.end(), &format!("`blobs/sha256/{}` in the archive has the content", layer.hex()));

    let lying = Image::with_diff_ids(&image.layers, &[Digest::of(b"x"), Digest::of(b"y")], Compression::Gzip);
    refused(&layout(&lying, &named(&lying, "a:b")).end(), "does not match its configuration");
    refused(&docker_archive(&lying, &json!(["a:b"])), "does not match its configuration");

    let mut list = docker_archive(&image, &json!(["a:b"]));
    list.truncate(list.len() - 1024);
    let list: Vec<u8> = list;
    refused(&list[..list.len() - 600], "truncated");
    let missing = json!([{"Config": "config.json", "Layers": ["no/layer.tar"]}]).to_string();
    let tar = Tar::default().file("config.json", &image.config).file("manifest.json", missing.as_bytes());
    refused(&tar.end(), "`no/layer.tar` in the archive is missing");
    let circle = json!([{"Config": "a", "Layers": []}]).to_string();
    let tar = Tar::default().symlink("a", "b").symlink("b", "a").file("manifest.json", circle.as_bytes());
    refused(&tar.end(), "chain of too many links");
}

#[test]
fn a_cut_at_any_block_leaves_nothing() {
    let image = sample(Compression::Gzip);
    for whole in [docker_archive(&image, &json!(["a:b"])), layout(&image, &named(&image, "a:b")).end()] {
        // What ends in the end marker alone is whole.
        for cut in (0..whole.len() - 1024).step_by(256) {
            let f = fixture();
            assert!(archive::import(&whole[..cut], &f.store).is_err(), "cut at {cut}");
            assert_eq!(f.store.list().unwrap(), [], "cut at {cut}");
        }
    }
}

#[test]
fn a_directory_is_not_read_through_links() {
    let f = fixture();
    let image = sample(Compression::None);
    let directory = f.dir.path().join("layout");
    tar::Archive::new(&layout(&image, &named(&image, "a:b")).end()[..]).unpack(&directory).unwrap();
    let index = directory.join("index.json");
    fs::rename(&index, f.dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", &index).unwrap();
    assert!(matches!(archive::import_path(&directory, &f.store), Err(ImportError::Open { .. })));
    assert!(matches!(
        archive::import_path(Path::new("/no/such/archive"), &f.store),
        Err(ImportError::Open { .. })
    ));
    assert_eq!(f.store.list().unwrap(), []);
}
