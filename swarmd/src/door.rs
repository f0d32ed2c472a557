//! The local socket: root's door to the node. The services behind it change when the node becomes a manager, so each
//! call is led to whatever is there at its moment.

use std::convert::Infallible;
use std::future::Future;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use anyhow::Context as _;
use http::{Request, Response};
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;

/// The manager's services, while there is a manager.
#[derive(Debug, Clone, Default)]
pub struct ManagerDoor(Arc<RwLock<Behind>>);

/// What a call for the cluster meets.
#[derive(Debug, Clone, Default)]
enum Behind {
    /// This node is no manager.
    #[default]
    Nobody,
    /// It is one whose disk cannot be read before it is unlocked.
    Locked,
    Manager(Routes),
}

impl ManagerDoor {
    pub fn open(&self, routes: Routes) {
        self.set(Behind::Manager(routes));
    }

    pub fn lock(&self) {
        self.set(Behind::Locked);
    }

    pub fn close(&self) {
        self.set(Behind::Nobody);
    }

    fn set(&self, behind: Behind) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = behind;
    }

    fn routes(&self) -> Result<Routes, Status> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Behind::Manager(routes) => Ok(routes.clone()),
            Behind::Nobody => Err(Status::new(Code::FailedPrecondition, NO_MANAGER)),
            Behind::Locked => {
                let mut status = Status::new(Code::FailedPrecondition, LOCKED);
                status.metadata_mut().insert(LOCKED_TRAILER, MetadataValue::from_static(""));
                Err(status)
            }
        }
    }
}

/// The local services, and behind them the manager's.
#[derive(Debug, Clone)]
pub struct LocalDoor {
    pub local: Routes,
    pub manager: ManagerDoor,
    /// Path of a call to the node's own service.
    pub local_prefix: &'static str,
}

impl NamedService for LocalDoor {
    const NAME: &'static str = "";
}

impl Service<Request<Body>> for LocalDoor {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let local = request.uri().path().starts_with(self.local_prefix);
        let routes = if local { Ok(self.local.clone()) } else { self.manager.routes() };
        Box::pin(async move {
            match routes {
                Ok(mut routes) => Ok(routes.call(request).await.unwrap_or_else(|never| match never {})),
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

const LOCKED: &str = "this manager is locked, so its part of the cluster's state cannot be read; run `swarmctl cluster unlock`";
/// Tells a program what [`LOCKED`] tells a person.
const LOCKED_TRAILER: &str = "swarm-locked";

const NO_MANAGER: &str = "this node is not a manager, so it cannot answer for the cluster; run the command on a manager \
                          (swarmctl cluster info names them), or make a cluster here: swarmctl cluster init";

/// Binds the socket for root only. A socket that nobody listens at any more is replaced.
///
/// # Errors
/// Another daemon listens there, or the path cannot be used.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => anyhow::bail!(
            "another swarmd listens at {}; give this one --socket and --data-dir",
            path.display()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(_) => std::fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?,
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))?;
    Ok(listener)
}
