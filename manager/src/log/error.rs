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
        "the log is damaged: {path}, offset {offset}: {what}. Nothing was changed. Restore this manager from a backup, \
         or remove it from the cluster and let it join again; do not delete the file"
    )]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error("an entry of {bytes} bytes is larger than the log takes ({limit} bytes)")]
    TooLarge { bytes: u64, limit: u64 },
}
