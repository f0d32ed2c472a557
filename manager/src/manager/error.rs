//! Why a manager does not start.

use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use swarm_image::StoreError;
use swarm_manager_core::api::ApiError;
use swarm_pki::{AuthorityError, CredentialsError, TlsError};

use super::BOOTSTRAP_TIMEOUT;
use crate::engine::EngineError;
use crate::keys::KeyError;
use crate::refound::RefoundError;

/// Why there is no manager.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error("cannot prepare the manager's directory {path}", path = path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen at {address}: is another manager running, or the address of another host?")]
    Listen {
        address: SocketAddrV4,
        #[source]
        source: io::Error,
    },
    #[error("the operating system gave no randomness")]
    Randomness(#[source] rand::rngs::SysError),
    #[error("cannot make the cluster's certificate authority")]
    Authority(#[source] AuthorityError),
    #[error("cannot make the manager's credentials")]
    Credentials(#[source] CredentialsError),
    #[error(
        "the manager's log {path} is gone: restore {path} from a backup, or let the node leave its cluster and make a new \
         one", path = path.display()
    )]
    NoLog { path: PathBuf },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot set up TLS")]
    Tls(#[source] TlsError),
    #[error("the node's certificate is that of a worker")]
    NotAManager,
    #[error("cannot start the manager")]
    Engine(#[source] EngineError),
    #[error("cannot open the image store")]
    Images(#[source] StoreError),
    #[error("cannot write the state of the backup")]
    Restore(#[source] RefoundError),
    #[error("swarmd stops")]
    Interrupted,
    #[error("cannot create the cluster")]
    Create(#[source] ApiError),
    #[error("cannot create the cluster: nothing was written within {} s", BOOTSTRAP_TIMEOUT.as_secs())]
    CreateTimeout,
}
