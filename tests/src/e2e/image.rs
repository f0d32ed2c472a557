//! Image archives as `docker save` writes them, built here.

use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::binary;

/// A docker-archive about to be written.
#[derive(Debug, Clone)]
pub struct Archive {
    pub name: String,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub env: Vec<String>,
    /// Uncompressed layer tars, bottom to top.
    pub layers: Vec<Vec<u8>>,
}

impl Archive {
    /// Writes the archive into `directory` and gives its path.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join(format!("{}.tar", self.name.replace([':', '/'], "-")));
        std::fs::write(&path, self.bytes()).expect("an archive");
        path
    }

    pub fn bytes(&self) -> Vec<u8> {
        let digests: Vec<String> = self
            .layers
            .iter()
            .map(|layer| format!("sha256:{}", hex::encode(Sha256::digest(layer))))
            .collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Cmd": self.command, "Env": self.env },
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let names: Vec<String> = (0..self.layers.len()).map(|number| format!("layer-{number}.tar")).collect();
        let manifest = json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": names }]);
        let mut tar = tar::Builder::new(Vec::new());
        for (name, layer) in names.iter().zip(&self.layers) {
            append(&mut tar, name, layer, 0o644);
        }
        append(&mut tar, "config.json", config.to_string().as_bytes(), 0o644);
        append(&mut tar, "manifest.json", manifest.to_string().as_bytes(), 0o644);
        tar.into_inner().expect("memory")
    }
}

/// Adds a file to a tar in memory.
pub fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, bytes).expect("memory");
}

/// Debian's static busybox with a few of its commands; sleeps unless told otherwise.
///
/// # Panics
/// busybox-static is not installed.
pub fn busybox_image(name: &str) -> Archive {
    let busybox = std::fs::read("/bin/busybox")
        .unwrap_or_else(|error| panic!("/bin/busybox: {error}; apt-get install -y busybox-static"));
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "bin/busybox", &busybox, 0o755);
    for command in [
        "sh", "sleep", "echo", "cat", "id", "env", "true", "false", "nc", "hostname", "dd", "ip", "yes",
        "kill",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{command}"), "busybox").expect("memory");
    }
    append(&mut tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n", 0o644);
    append(&mut tar, "etc/group", b"root:x:0:\nweb:x:1000:\n", 0o644);
    Archive {
        name: name.to_owned(),
        entrypoint: Vec::new(),
        command: vec!["/bin/sleep".to_owned(), "100000".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        layers: vec![tar.into_inner().expect("memory")],
    }
}

/// The project's static HTTP server; answers `host=… version=… node=… client=…`.
pub fn demo_image(name: &str, version: &str) -> Archive {
    let program = std::fs::read(binary("swarm-demo")).expect("built");
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "swarm-demo", &program, 0o755);
    Archive {
        name: name.to_owned(),
        entrypoint: vec!["/swarm-demo".to_owned()],
        command: vec!["serve".to_owned(), "80".to_owned()],
        env: vec![format!("VERSION={version}")],
        layers: vec![tar.into_inner().expect("memory")],
    }
}
