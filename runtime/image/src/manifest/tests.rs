//! Index to image, and every confusion that must be refused.

use serde_json::{Value, json};

use super::*;
use crate::media_type::{DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};

struct Fixture {
    store: ContentStore,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: ContentStore::open(dir.path()).unwrap(), _dir: dir }
    }

    fn put(&self, media_type: &str, value: &Value) -> Descriptor {
        self.store.write_bytes(media_type, value.to_string().as_bytes()).unwrap()
    }

    fn layer(&self) -> Descriptor {
        self.store.write_bytes(OCI_LAYER, b"layer").unwrap()
    }

    fn config(&self, architecture: &str) -> Descriptor {
        let diff_ids = [Digest::of(b"layer")];
        let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
        self.put(OCI_CONFIG, &json!({"os": "linux", "architecture": architecture, "rootfs": rootfs}))
    }

    fn manifest_json(&self, architecture: &str) -> Value {
        json!({"schemaVersion": 2, "config": self.config(architecture), "layers": [self.layer()]})
    }

    fn manifest(&self, architecture: &str) -> Descriptor {
        self.put(OCI_MANIFEST, &self.manifest_json(architecture))
    }

    fn index(&self, entries: &[(&Descriptor, &str)]) -> Descriptor {
        let entries: Vec<Value> = entries
            .iter()
            .map(|(descriptor, platform)| {
                let mut entry = serde_json::to_value(descriptor).unwrap();
                if let Some((os, architecture)) = platform.split_once('/') {
                    entry["platform"] = json!({"os": os, "architecture": architecture});
                }
                entry
            })
            .collect();
        self.put(OCI_INDEX, &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))
    }

    #[track_caller]
    fn refused(&self, target: &Descriptor, says: &str) {
        let error = ImageManifest::load(&self.store, target, &amd64()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

fn amd64() -> Platform {
    Platform::linux("amd64", "")
}

#[test]
fn an_index_leads_to_the_image_of_the_platform() {
    let f = Fixture::new();
    let (arm, amd) = (f.manifest("arm64"), f.manifest("amd64"));
    let index = f.index(&[(&amd, "unknown/unknown"), (&arm, "linux/arm64"), (&amd, "linux/amd64")]);
    let image = ImageManifest::load(&f.store, &index, &amd64()).unwrap();
    assert_eq!(image.manifest, amd);
    assert_eq!(image.layers[0].diff_id, Digest::of(b"layer"));
    assert_eq!((image.blobs().count(), image.blobs().last(), image.target()), (4, Some(&index), &index));
    let image = ImageManifest::load(&f.store, &f.index(&[(&index, "")]), &amd64()).unwrap();
    assert_eq!(image.manifest, amd, "through an index of an index");
}

#[test]
fn a_platform_that_is_not_offered_is_named() {
    let f = Fixture::new();
    let arm = f.manifest("arm64");
    f.refused(&f.index(&[(&arm, "linux/arm64")]), "not built for linux/amd64, but for linux/arm64");
    f.refused(&arm, "not built for linux/amd64, but for linux/arm64");
    f.refused(&f.index(&[(&arm, "")]), "but for linux/arm64");
}

#[test]
fn what_is_missing_is_told_step_by_step() {
    let f = Fixture::new();
    let missing = |target: &Descriptor| match ImageManifest::look_up(&f.store, target, &amd64()).unwrap() {
        Lookup::Missing(blobs) => blobs.into_iter().map(|blob| blob.digest).collect::<Vec<_>>(),
        Lookup::Complete(_) => Vec::new(),
    };
    let manifest = f.manifest("amd64");
    let index = f.index(&[(&manifest, "linux/amd64")]);
    let (layer, config) = (f.layer(), f.config("amd64"));
    assert_eq!(missing(&index), []);
    f.store.remove(&layer.digest).unwrap();
    f.store.remove(&config.digest).unwrap();
    let mut both = [layer.digest, config.digest];
    both.sort_unstable();
    assert_eq!(missing(&index), both);
    f.store.remove(&manifest.digest).unwrap();
    assert_eq!(missing(&index), [manifest.digest]);
    f.store.remove(&index.digest).unwrap();
    assert_eq!(missing(&index), [index.digest]);
    f.refused(&index, "is missing");
}

#[test]
fn a_document_is_an_index_or_a_manifest_never_both() {
    let f = Fixture::new();
    let mut both = f.manifest_json("amd64");
    both["manifests"] = json!([]);
    f.refused(&f.put(OCI_MANIFEST, &both), "not (only) a");
    f.refused(&f.put(OCI_INDEX, &both), "not (only) a");
    f.refused(&f.put(OCI_INDEX, &f.manifest_json("amd64")), "not (only) a");
    let mut lying = f.manifest_json("amd64");
    lying["mediaType"] = json!(OCI_INDEX);
    f.refused(&f.put(OCI_MANIFEST, &lying), "but calls itself");
    lying["mediaType"] = json!(OCI_MANIFEST);
    f.refused(&f.put(DOCKER_MANIFEST, &lying), "but calls itself");
    f.refused(&f.put("text/plain", &lying), "not the media type of an image");
}

#[test]
fn what_is_no_container_image_is_refused() {
    let f = Fixture::new();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut manifest = f.manifest_json("amd64");
        change(&mut manifest);
        f.put(OCI_MANIFEST, &manifest)
    };
    f.refused(&with(&|m| m["schemaVersion"] = json!(1)), "schema version 1");
    f.refused(&with(&|m| m["fsLayers"] = json!([])), "not supported");
    f.refused(&with(&|m| m["config"]["mediaType"] = json!("application/helm")), "not a container image");
    f.refused(&with(&|m| m["layers"][0]["mediaType"] = json!("application/sbom")), "unsupported media type");
    f.refused(&with(&|m| m["layers"] = json!([])), "0 layers, its configuration 1");
    f.refused(&with(&|m| m["layers"] = json!(vec![f.layer(); 128])), "at most 127");
    f.refused(&with(&|m| m["layers"][0]["size"] = json!(u64::MAX)), "bytes together");
    f.refused(&with(&|m| m["config"]["size"] = json!(-1)), "malformed");
    f.refused(&with(&|m| m["config"]["size"] = json!(u64::MAX)), "at most");
    let twice = br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
    f.refused(&f.store.write_bytes(OCI_INDEX, twice).unwrap(), "malformed");
    f.refused(&f.store.write_bytes(OCI_INDEX, b"not json").unwrap(), "malformed");
}

#[test]
fn an_index_that_leads_nowhere_ends() {
    let f = Fixture::new();
    let mut at = f.index(&[]);
    f.refused(&at, "no platform that it names");
    at = f.manifest("amd64");
    for _ in 0..5 {
        at = f.index(&[(&at, "")]);
    }
    f.refused(&at, "index of indexes");
}
