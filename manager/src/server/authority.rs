//! The certificate authority's calls, open to nodes that are no members yet.

use std::time::SystemTime;

use swarm_pki::Caller;
use swarm_proto::v1;
use swarm_proto::v1::certificate_authority_server::CertificateAuthority;
use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::sessions::calling_node;
use super::status::from_api;
use crate::authority::{Admission, AdmissionError, Candidate, ClusterAuthority, Grant};
use crate::text::chain;

pub struct AuthorityCalls {
    pub authority: ClusterAuthority,
}

#[tonic::async_trait]
impl CertificateAuthority for AuthorityCalls {
    async fn get_root(
        &self,
        _: Request<v1::GetRootRequest>,
    ) -> Result<Response<v1::GetRootResponse>, Status> {
        let (root_certificate, root_certificates) = self.authority.roots().await?;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        Ok(Response::new(v1::GetRootResponse { root_certificate, now, root_certificates }))
    }

    async fn issue_node_certificate(
        &self,
        request: Request<v1::IssueNodeCertificateRequest>,
    ) -> Result<Response<v1::IssueNodeCertificateResponse>, Status> {
        let request = request.into_inner();
        let hostname = request.hostname.clone();
        let admission = self
            .authority
            .admit(Candidate {
                request: request.csr,
                token: request.token,
                hostname: request.hostname,
                data_address: request.data_address,
                manager_address: request.manager_address,
                expired_certificate: request.expired_certificate,
            })
            .await?;
        let identity = admission.identity;
        info!(node.id = %identity.node, node.hostname = hostname, "a node joined");
        Ok(Response::new(issued(admission)))
    }

    async fn renew_node_certificate(
        &self,
        request: Request<v1::RenewNodeCertificateRequest>,
    ) -> Result<Response<v1::IssueNodeCertificateResponse>, Status> {
        let node = calling_node(&request)?;
        let v1::RenewNodeCertificateRequest { csr, manager_address } = request.into_inner();
        let admission = self.authority.renew(node, &csr, manager_address).await?;
        info!(node.id = %node, role = ?admission.identity.role, "renewed a node's certificate");
        Ok(Response::new(issued(admission)))
    }

    async fn issue_operator_certificate(
        &self,
        request: Request<v1::IssueOperatorCertificateRequest>,
    ) -> Result<Response<v1::IssueOperatorCertificateResponse>, Status> {
        let v1::IssueOperatorCertificateRequest { csr, token } = request.into_inner();
        let grant = self.authority.enrol_operator(&csr, &token).await?;
        info!(operator = grant.account.name, role = %grant.account.role, "an operator came");
        Ok(Response::new(granted(grant)))
    }

    async fn renew_operator_certificate(
        &self,
        request: Request<v1::RenewOperatorCertificateRequest>,
    ) -> Result<Response<v1::IssueOperatorCertificateResponse>, Status> {
        let Some(Caller::Operator(identity)) = request.extensions().get::<Caller>().copied() else {
            return Err(Status::permission_denied("only operators with a certificate may renew it"));
        };
        let grant = self.authority.renew_operator(identity.operator, &request.into_inner().csr).await?;
        Ok(Response::new(granted(grant)))
    }
}

fn granted(grant: Grant) -> v1::IssueOperatorCertificateResponse {
    v1::IssueOperatorCertificateResponse {
        certificate_chain: grant.certificate_chain,
        managers: grant.managers,
        root_certificates: grant.root_certificates,
    }
}

fn issued(admission: Admission) -> v1::IssueNodeCertificateResponse {
    let identity = admission.identity;
    v1::IssueNodeCertificateResponse {
        node_id: identity.node.to_string(),
        role: v1::NodeRole::from(identity.role) as i32,
        certificate_chain: admission.certificate_chain,
        root_certificates: admission.root_certificates,
        cluster_id: identity.cluster.to_string(),
        managers: admission.managers,
        raft_id: admission.raft_id.unwrap_or(0),
    }
}

impl From<AdmissionError> for Status {
    fn from(error: AdmissionError) -> Self {
        let code = match &error {
            AdmissionError::Api(error) => return from_api(error),
            AdmissionError::Refused
            | AdmissionError::Stranger(_)
            | AdmissionError::Former(_)
            | AdmissionError::TokenOfWorker => Code::PermissionDenied,
            AdmissionError::Leaving => Code::FailedPrecondition,
            AdmissionError::Token(_)
            | AdmissionError::OperatorToken(_)
            | AdmissionError::Description { .. }
            | AdmissionError::Request(_) => Code::InvalidArgument,
            AdmissionError::Authority(_) | AdmissionError::Stored => Code::Internal,
        };
        Self::new(code, chain(&error))
    }
}
