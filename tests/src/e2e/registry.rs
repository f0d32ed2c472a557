//! A real registry (Debian's docker-registry) on a node of the test, filled over its HTTP API.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use swarm_network::DevNetwork;

use super::{Archive, eventually};

const PORT: u16 = 5000;
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Registry {
    address: SocketAddrV4,
    child: Child,
}

impl Registry {
    /// # Panics
    /// docker-registry is not installed, or does not listen.
    pub fn start(network: &DevNetwork, node: u16, directory: &Path) -> Self {
        let address = SocketAddrV4::new(network.address(node), PORT);
        let storage = directory.join("registry");
        let config = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            storage.display()
        );
        std::fs::write(&config, text).expect("a configuration");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = network
            .spawn(node, &mut command)
            .unwrap_or_else(|error| panic!("docker-registry: {error}; apt-get install -y docker-registry"));
        let registry = Self { address, child };
        eventually("the registry listens", || registry.call("GET", "/v2/", "", &[]).map(|_| ()));
        registry
    }

    /// `address:port`, the first part of image names.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process number")
    }

    /// Uploads an archive's layers under a name and tag, with gzip as registries have them.
    pub fn push(&self, name: &str, tag: &str, archive: &Archive) {
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in &archive.layers {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(layer).expect("memory");
            let compressed = encoder.finish().expect("memory");
            let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
            layers.push(json!({ "mediaType": media_type, "digest": self.put_blob(name, &compressed), "size": compressed.len() }));
            diff_ids.push(digest(layer));
        }
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Entrypoint": archive.entrypoint, "Cmd": archive.command, "Env": archive.env },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string();
        let config_digest = self.put_blob(name, config.as_bytes());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len() },
            "layers": layers,
        });
        let path = format!("/v2/{name}/manifests/{tag}");
        self.call("PUT", &path, media_type, manifest.to_string().as_bytes()).expect("the manifest is taken");
    }

    fn put_blob(&self, name: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let head =
            self.call("POST", &format!("/v2/{name}/blobs/uploads/"), "", &[]).expect("an upload begins");
        let location = head
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case("location")))
            .map(|(_, value)| value.trim().to_owned())
            .expect("a location");
        let path = location.strip_prefix(&format!("http://{}", self.address)).unwrap_or(&location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={digest}");
        self.call("PUT", &path, "application/octet-stream", bytes).expect("the blob is taken");
        digest
    }

    /// The answer's head, where the status is 2xx.
    fn call(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> Result<String, String> {
        let answer = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.address.into(), TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                self.address,
                body.len()
            )?;
            stream.write_all(body)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = answer().map_err(|error| error.to_string())?;
        if answer.starts_with("HTTP/1.1 2") { Ok(answer) } else { Err(answer) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
