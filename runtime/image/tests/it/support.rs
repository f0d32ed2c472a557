//! Hand-made tar streams, so that hostile ones can be written, and images made of them.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;
use swarm_image::media_type::{OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST};
use swarm_image::{
    Compression, ContentStore, Descriptor, Digest, ImageManifest, LayerError, LayerStore, Platform,
};

/// A tar stream under construction.
#[derive(Clone, Default)]
pub struct Tar(Vec<u8>);

/// One header; the defaults are those of an ordinary entry.
#[derive(Clone)]
pub struct Header {
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub device: (u32, u32),
}

impl Header {
    pub fn of(kind: u8) -> Self {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        Self { kind, mode, uid: 0, gid: 0, mtime: 1_000_000, device: (0, 0) }
    }
}

impl Tar {
    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(&Header::of(b'0'), path, "", content)
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(&Header::of(b'5'), path, "", b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(&Header::of(b'2'), path, target, b"")
    }

    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(&Header::of(b'1'), path, target, b"")
    }

    /// PAX records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.entry(&Header::of(b'x'), "pax", "", &content)
    }

    pub fn entry(mut self, header: &Header, path: &str, link: &str, content: &[u8]) -> Self {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(path.len() <= 100 && link.len() <= 100, "names of tests are short");
        put(0, path.as_bytes());
        put(100, format!("{:07o}\0", header.mode).as_bytes());
        put(108, format!("{:07o}\0", header.uid).as_bytes());
        put(116, format!("{:07o}\0", header.gid).as_bytes());
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, format!("{:011o}\0", header.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[header.kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0", header.device.0).as_bytes());
        put(337, format!("{:07o}\0", header.device.1).as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The stream with its end marker.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

pub fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => OCI_LAYER,
        Compression::Gzip => OCI_LAYER_GZIP,
        Compression::Zstd => OCI_LAYER_ZSTD,
    }
}

pub fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: media_type.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// An image as the blobs that it consists of.
pub struct Image {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// Uncompressed layers, bottom first, and how each is compressed as a blob.
    pub layers: Vec<Vec<u8>>,
    pub blobs: Vec<Vec<u8>>,
}

impl Image {
    pub fn new(layers: &[Vec<u8>], compression: Compression) -> Self {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        Self::with_diff_ids(layers, &diff_ids, compression)
    }

    pub fn with_diff_ids(layers: &[Vec<u8>], diff_ids: &[Digest], compression: Compression) -> Self {
        let config = json!({
            "os": "linux", "architecture": Platform::current().architecture,
            "config": {"Cmd": ["/bin/true"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let blobs: Vec<Vec<u8>> = layers.iter().map(|layer| compress(layer, compression)).collect();
        let described: Vec<Descriptor> =
            blobs.iter().map(|blob| describe(layer_type(compression), blob)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": describe(OCI_CONFIG, &config), "layers": described,
        });
        Self { manifest: manifest.to_string().into_bytes(), config, layers: layers.to_vec(), blobs }
    }

    pub fn target(&self) -> Descriptor {
        describe(OCI_MANIFEST, &self.manifest)
    }

    /// All blobs in a store.
    pub fn store(&self, store: &ContentStore) -> ImageManifest {
        for blob in self.blobs.iter().chain([&self.config, &self.manifest]) {
            store.write_bytes("", blob).unwrap();
        }
        ImageManifest::load(store, &self.target(), &Platform::current()).unwrap()
    }
}

/// A blob store and a layer store in a directory of their own.
pub struct Host {
    pub store: ContentStore,
    pub layers: LayerStore,
    pub dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "unpacking layers needs root: run the tests as root");
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: ContentStore::open(dir.path().join("content")).unwrap(),
            layers: LayerStore::open(dir.path().join("unpacked")).unwrap(),
            dir,
        }
    }

    pub fn unpack_all(
        &self,
        layers: &[Vec<u8>],
        compression: Compression,
    ) -> Result<Vec<PathBuf>, LayerError> {
        let image = Image::new(layers, compression).store(&self.store);
        self.layers.unpack(&image, &self.store)
    }

    pub fn unpack(&self, layer: Tar) -> Result<PathBuf, LayerError> {
        self.unpack_all(&[layer.end()], Compression::None).map(|mut paths| paths.remove(0))
    }

    /// Names left in the layer store's two directories.
    pub fn leftovers(&self) -> Vec<String> {
        let unpacked = self.dir.path().join("unpacked");
        let names = |dir: PathBuf| {
            let entries = std::fs::read_dir(dir).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        [names(unpacked.join("staging")), names(unpacked.join("layers/sha256"))].concat()
    }
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(source) = at {
        text = format!("{text}: {source}");
        at = source.source();
    }
    text
}
