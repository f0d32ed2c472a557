//! Limits, small enough to be reached quickly. What layers may contain is tested from outside, in `tests/it`.

use std::io::Write;

use super::*;
use crate::compression::InflateLimits;
use crate::descriptor::media_type::OCI_LAYER_GZIP;
use crate::{Compression, Descriptor};

const TINY: UnpackLimits = UnpackLimits {
    inflate: InflateLimits { max_bytes: 512 << 10, ratio_free_bytes: 16 << 10 },
    max_entries: 10,
    max_depth: 5,
};

fn tar(paths: &[String], size: u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for path in paths {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        builder.append_data(&mut header, path, io::Read::take(io::repeat(0), size)).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Unpacks a layer under the tiny limits; what is left behind must be nothing.
fn unpack(content: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path().join("content")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    let blob: Descriptor = store.write_bytes(OCI_LAYER_GZIP, &encoder.finish().unwrap()).unwrap();
    let layer = Layer { blob, compression: Compression::Gzip, diff_id: Digest::of(content) };

    let layers = LayerStore::open_limited(&dir.path().join("unpacked"), TINY).unwrap();
    let done = layers.ensure(&layer, &store).map_err(|error| {
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    });
    assert_eq!(fs::read_dir(dir.path().join("unpacked/staging")).unwrap().count(), 0);
    assert_eq!(
        fs::read_dir(dir.path().join("unpacked/layers/sha256")).unwrap().count(),
        usize::from(done.is_ok())
    );
    done
}

#[track_caller]
fn refused(content: &[u8], says: &str) {
    let error = unpack(content).unwrap_err();
    assert!(error.contains(says), "{error}");
}

#[test]
fn a_layer_has_a_bounded_number_of_entries() {
    let names = |count: usize| (0..count).map(|n| format!("f{n}")).collect::<Vec<_>>();
    unpack(&tar(&names(10), 0)).unwrap();
    refused(&tar(&names(11), 0), "more than the 10 entries");
}

#[test]
fn a_layer_has_a_bounded_depth() {
    unpack(&tar(&["1/2/3/4/5".into()], 0)).unwrap();
    refused(&tar(&["1/2/3/4/5/6".into()], 0), "more than 5 directories deep");
}

#[test]
fn bombs_are_stopped_while_they_inflate() {
    refused(&tar(&["zeros".into()], 256 << 10), "inflates to more than 200 times");
    // Incompressible content of the same size passes the ratio, and more of it meets the limit.
    let noise: Vec<u8> =
        (0..100_000u64).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    refused(&noise_file(&noise[..600 << 10]), "more than 524288 bytes");
    unpack(&noise_file(&noise[..256 << 10])).unwrap();
    // Zeros after the end marker are content, too.
    let mut padded = tar(&["small".into()], 1);
    padded.resize(256 << 10, 0);
    refused(&padded, "inflates to more than 200 times");
}

fn noise_file(noise: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(noise.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "noise", noise).unwrap();
    builder.into_inner().unwrap()
}
