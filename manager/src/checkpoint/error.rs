//! What can go wrong with checkpoints. The texts are for an operator whose manager just stopped.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot {action} the checkpoint store {path}")]
    Sled {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: sled::Error,
    },
    #[error("cannot {action} the checkpoint store {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the checkpoint store {path} was being written when the manager ended")]
    Unfinished { path: PathBuf },
    #[error("the checkpoint store {path} is damaged: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error(
        "the checkpoint store {path} is encrypted with another data key than the manager's present one; put the file \
         data.key that belongs to it back, or start the build of swarmd that wrote it"
    )]
    OtherKey { path: PathBuf },
    #[error(
        "both copies of the checkpoint store {path} are damaged; this manager does not start. If the cluster has other \
         managers, run `swarmctl node rm --force` for this node at one of them, move this node's data directory aside, \
         and join again; if this is the only one, restore it from a backup. What is wrong with the second copy: {second}; \
         with the first"
    )]
    BothDamaged {
        path: PathBuf,
        second: String,
        #[source]
        first: Box<CheckpointError>,
    },
}
