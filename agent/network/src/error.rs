//! What can go wrong, one enum per operation.

use thiserror::Error;

/// Opening or removing a node's network.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("the data path is not available in this build")]
    Unavailable,
}

/// Programming the routing mesh.
#[derive(Debug, Error)]
pub enum MeshError {
    #[error("the data path is not available in this build")]
    Unavailable,
}

/// Giving a task its network, changing it or taking it away.
#[derive(Debug, Error)]
pub enum TaskError {
    #[error("the data path is not available in this build")]
    Unavailable,
}

/// Making or removing the networks of a development cluster.
#[derive(Debug, Error)]
pub enum DevError {
    #[error("the data path is not available in this build")]
    Unavailable,
}
