//! What can go wrong with the log. The texts are for an operator whose manager just stopped.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the log cannot be written since an earlier write or sync failed; the manager must be restarted")]
    Poisoned,
    #[error(
        "the log is damaged: {path}, offset {offset}: {what}. Nothing was changed, and this manager does not start: it \
         might forget what it promised to the others. If the cluster has other managers, run `swarmctl node rm --force` \
         for this node at one of them, move this node's data directory aside, and join again; if this is the only one, \
         restore it from a backup. Do not delete the file"
    )]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error(
        "the log {path} was written by a build of swarmd that did not encrypt it; start that build, remove this manager \
         from the cluster, and let it join again with this one"
    )]
    OldFormat { path: PathBuf },
    #[error("an entry of {bytes} bytes is larger than the log takes ({limit} bytes)")]
    TooLarge { bytes: u64, limit: u64 },
}
