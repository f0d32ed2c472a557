//! The wire: generated messages and services of `swarm/v1/*.proto`, and their conversion to and from the model.
//!
//! Wire types stop here. A conversion validates everything once, so that behind it nothing that must be there is
//! optional and nothing is left unparsed.
#![forbid(unsafe_code)]

/// Generated from `proto/swarm/v1/*.proto`.
#[allow(clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("swarm.v1");
}

/// Every file, message and service of the protocol: an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod convert;

pub mod backup;
