//! Services: specs are converted and their images resolved here; everything else is the core's decision.

use std::sync::Arc;

use swarm_manager_core::api::{Request as Ask, Response as Answer, ServiceView};
use swarm_model::{Actor, ImageRef, ServiceSpec};
use swarm_proto::v1;
use swarm_proto::v1::services_server::Services;
use tonic::{Request, Response, Status};

use super::access::actor;
use super::status::{from_api, from_convert, from_image};
use super::views;
use crate::engine::Engine;
use crate::images::{AskRegistry, Images};

pub struct ServiceCalls {
    pub engine: Engine,
    pub images: Images,
}

#[tonic::async_trait]
impl Services for ServiceCalls {
    async fn create(
        &self,
        request: Request<v1::CreateServiceRequest>,
    ) -> Result<Response<v1::CreateServiceResponse>, Status> {
        let by = actor(&request);
        let request = request.into_inner();
        let request_id = match request.request_id.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|_| Status::invalid_argument("the request id is not an id"))?),
        };
        let spec = self.admissible(request.spec, None).await?;
        let service = self.ask(by, Ask::CreateService { spec: Arc::new(spec), request_id }).await?;
        let service = Some(views::service(&service));
        Ok(Response::new(v1::CreateServiceResponse { service, warnings: Vec::new() }))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateServiceRequest>,
    ) -> Result<Response<v1::UpdateServiceResponse>, Status> {
        let by = actor(&request);
        let v1::UpdateServiceRequest { service_id: service, version, spec } = request.into_inner();
        let current = self.ask(None, Ask::GetService { service: service.clone() }).await?;
        let spec = Arc::new(self.admissible(spec, Some(&current.service.spec)).await?);
        let service = self.ask(by, Ask::UpdateService { service, version, spec }).await?;
        let service = Some(views::service(&service));
        Ok(Response::new(v1::UpdateServiceResponse { service, warnings: Vec::new() }))
    }

    async fn list(
        &self,
        _: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        match self.engine.request(Ask::ListServices).await.map_err(|error| from_api(&error))? {
            Answer::Services(list) => {
                let services = list.iter().map(views::service).collect();
                Ok(Response::new(v1::ListServicesResponse { services }))
            }
            other => unreachable!("ListServices is answered by services, not by {other:?}"),
        }
    }

    async fn get(&self, request: Request<v1::GetServiceRequest>) -> Result<Response<v1::Service>, Status> {
        let service = self.ask(None, Ask::GetService { service: request.into_inner().service }).await?;
        Ok(Response::new(views::service(&service)))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveServiceRequest>,
    ) -> Result<Response<v1::RemoveServiceResponse>, Status> {
        let by = actor(&request);
        let service = request.into_inner().service_id;
        let removed = self.engine.request_by(by, Ask::RemoveService { service }).await;
        removed.map_err(|error| from_api(&error))?;
        Ok(Response::new(v1::RemoveServiceResponse {}))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackServiceRequest>,
    ) -> Result<Response<v1::UpdateServiceResponse>, Status> {
        let by = actor(&request);
        let v1::RollbackServiceRequest { service_id: service, version, to_revision } = request.into_inner();
        let to_revision = Some(to_revision).filter(|revision| *revision != 0);
        let service = self.ask(by, Ask::RollbackService { service, version, to_revision }).await?;
        let service = Some(views::service(&service));
        Ok(Response::new(v1::UpdateServiceResponse { service, warnings: Vec::new() }))
    }
}

impl ServiceCalls {
    async fn ask(&self, by: Option<Actor>, request: Ask) -> Result<ServiceView, Status> {
        match self.engine.request_by(by, request).await.map_err(|error| from_api(&error))? {
            Answer::Service(view) => Ok(view),
            other => unreachable!("the request is answered by a service, not by {other:?}"),
        }
    }

    /// The spec as the core takes it: valid, with its image resolved. An image that an update leaves as it is stays
    /// what it was resolved to, however its tag moved.
    async fn admissible(
        &self,
        spec: Option<v1::ServiceSpec>,
        current: Option<&ServiceSpec>,
    ) -> Result<ServiceSpec, Status> {
        let wire = spec.ok_or_else(|| Status::invalid_argument("the request has no spec"))?;
        let ask_registry = if asks_not_to_resolve(&wire) { AskRegistry::No } else { AskRegistry::Yes };
        let mut spec = ServiceSpec::try_from(wire).map_err(|error| from_convert(&error))?;
        let placement = &mut spec.task.placement;
        let image = &mut spec.task.container.image;
        let kept = |current: &&ServiceSpec| is_kept(image, &current.task.container.image, ask_registry);
        if let Some(current) = current.filter(kept) {
            placement.platforms.clone_from(&current.task.placement.platforms);
            return Ok(spec);
        }
        let asked = match &image.digest {
            Some(digest) if !image.name.contains('@') => format!("{}@{digest}", image.name),
            _ => std::mem::take(&mut image.name),
        };
        let resolved = self.images.resolve(&asked, ask_registry).await.map_err(|error| from_image(&error))?;
        *image = resolved.image;
        placement.platforms = resolved.platforms;
        Ok(spec)
    }
}

fn asks_not_to_resolve(spec: &v1::ServiceSpec) -> bool {
    let container = spec.task.as_ref().and_then(|task| task.container.as_ref());
    container.and_then(|container| container.image.as_ref()).is_some_and(|image| image.no_resolve)
}

/// An image that has no digest stays so only as long as nobody asks for one.
fn is_kept(asked: &ImageRef, current: &ImageRef, ask_registry: AskRegistry) -> bool {
    asked == current && (current.digest.is_some() || ask_registry == AskRegistry::No)
}
