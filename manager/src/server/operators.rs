//! Operators: who is invited, who is there, who is removed.

use std::time::Duration;

use swarm_manager_core::api::{Request as Ask, Response as Answer};
use swarm_model::{OperatorAccount, OperatorRole};
use swarm_proto::v1;
use swarm_proto::v1::operators_server::Operators;
use tonic::{Request, Response, Status};

use super::access::actor;
use super::status::from_api;
use crate::authority::ClusterAuthority;
use crate::engine::Engine;

pub struct OperatorCalls {
    pub engine: Engine,
    pub authority: ClusterAuthority,
}

#[tonic::async_trait]
impl Operators for OperatorCalls {
    async fn invite(
        &self,
        request: Request<v1::InviteOperatorRequest>,
    ) -> Result<Response<v1::InviteOperatorResponse>, Status> {
        let by = actor(&request);
        let request = request.into_inner();
        let role = match request.role() {
            v1::OperatorRole::Unspecified => return Err(Status::invalid_argument("the request has no role")),
            v1::OperatorRole::ReadOnly => OperatorRole::ReadOnly,
            v1::OperatorRole::Deployer => OperatorRole::Deployer,
            v1::OperatorRole::Admin => OperatorRole::Admin,
        };
        let life = match request.token_life_ms {
            0 => OperatorAccount::TOKEN_LIFE,
            life => Duration::from_millis(life),
        };
        let (token, account) = self.authority.invite_operator(by, request.name, role, life).await?;
        Ok(Response::new(v1::InviteOperatorResponse {
            token: token.reveal(),
            managers: self.authority.managers(),
            operator: Some(view(&account)),
        }))
    }

    async fn list(
        &self,
        _: Request<v1::ListOperatorsRequest>,
    ) -> Result<Response<v1::ListOperatorsResponse>, Status> {
        match self.engine.request(Ask::ListOperators).await.map_err(|error| from_api(&error))? {
            Answer::Operators(accounts) => {
                let operators = accounts.iter().map(|account| view(account)).collect();
                Ok(Response::new(v1::ListOperatorsResponse { operators }))
            }
            other => unreachable!("ListOperators is answered by operators, not by {other:?}"),
        }
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveOperatorRequest>,
    ) -> Result<Response<v1::RemoveOperatorResponse>, Status> {
        let by = actor(&request);
        let remove = Ask::RemoveOperator { operator: request.into_inner().operator };
        self.engine.request_by(by, remove).await.map_err(|error| from_api(&error))?;
        Ok(Response::new(v1::RemoveOperatorResponse {}))
    }
}

fn view(account: &OperatorAccount) -> v1::Operator {
    let role = match account.role {
        OperatorRole::ReadOnly => v1::OperatorRole::ReadOnly,
        OperatorRole::Deployer => v1::OperatorRole::Deployer,
        OperatorRole::Admin => v1::OperatorRole::Admin,
    };
    let enrolment = account.enrolment.as_ref();
    v1::Operator {
        id: account.id.to_string(),
        name: account.name.clone(),
        role: role as i32,
        created_at: account.created_at.as_micros(),
        created_by: account.created_by.clone(),
        token_until: account.invitation.as_ref().map_or(0, |invitation| invitation.expires_at.as_micros()),
        enrolled_at: enrolment.map_or(0, |enrolment| enrolment.at.as_micros()),
        valid_until: enrolment.map_or(0, |enrolment| enrolment.valid_until.as_micros()),
    }
}
