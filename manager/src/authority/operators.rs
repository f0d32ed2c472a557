//! Operators: tokens that may be used once, and the certificates that they are turned into.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use swarm_manager_core::api::{InviteOperator, Request, Response};
use swarm_model::{Actor, OperatorAccount, OperatorId, OperatorRole};
use swarm_pki::{JoinSecret, OperatorIdentity, OperatorToken, SigningRequest};

use super::{AdmissionError, ClusterAuthority, load, load_issuer};

/// An operator's new certificate.
#[derive(Debug)]
pub struct Grant {
    pub account: Arc<OperatorAccount>,
    /// PEM, leaf first.
    pub certificate_chain: String,
    /// `host:port`.
    pub managers: Vec<String>,
    /// To believe, PEM.
    pub root_certificates: String,
}

impl ClusterAuthority {
    /// A token for a new operator.
    ///
    /// # Errors
    /// The name is taken, or the manager cannot write.
    pub async fn invite_operator(
        &self,
        by: Option<Actor>,
        name: String,
        role: OperatorRole,
        token_life: Duration,
    ) -> Result<(OperatorToken, Arc<OperatorAccount>), AdmissionError> {
        let cluster = self.cluster().await?;
        let token = OperatorToken { root: load(&cluster)?.root_digest(), secret: JoinSecret::generate() };
        let invite = InviteOperator { name, role, secret: digest_of(&token.secret), token_life };
        let answer = self.engine.request_by(by, Request::InviteOperator(invite)).await?;
        Ok((token, account(answer)))
    }

    /// Turns a token into a certificate for the request's key.
    ///
    /// # Errors
    /// The token or the request is refused, or the manager cannot write.
    pub async fn enrol_operator(&self, request: &str, token: &str) -> Result<Grant, AdmissionError> {
        let token: OperatorToken = token.parse().map_err(AdmissionError::OperatorToken)?;
        let request = SigningRequest::parse(request).map_err(AdmissionError::Request)?;
        let enrol = Request::EnrolOperator { secret: digest_of(&token.secret), key: request.key_digest() };
        let account = account(self.engine.request(enrol).await?);
        self.grant(&request, account).await
    }

    /// A certificate for another key of the same operator.
    ///
    /// # Errors
    /// They are no operator any more, the request is refused, or the manager cannot write.
    pub async fn renew_operator(&self, operator: OperatorId, request: &str) -> Result<Grant, AdmissionError> {
        let request = SigningRequest::parse(request).map_err(AdmissionError::Request)?;
        let account = account(self.engine.request(Request::RenewOperator { operator }).await?);
        self.grant(&request, account).await
    }

    async fn grant(
        &self,
        request: &SigningRequest,
        account: Arc<OperatorAccount>,
    ) -> Result<Grant, AdmissionError> {
        let cluster = self.cluster().await?;
        let identity = OperatorIdentity { operator: account.id, role: account.role, cluster: cluster.id };
        let now = SystemTime::now();
        let until = account.enrolment.as_ref().map_or(0, |enrolment| enrolment.valid_until.as_micros());
        let until = SystemTime::UNIX_EPOCH + Duration::from_micros(until);
        let chain = load_issuer(&cluster)?.issue_operator(request, &identity, &account.name, now, until);
        let certificate_chain = chain.map_err(AdmissionError::Authority)?;
        let managers = self.managers();
        Ok(Grant { account, certificate_chain, managers, root_certificates: cluster.roots() })
    }
}

fn account(answer: Response) -> Arc<OperatorAccount> {
    match answer {
        Response::Operator(account) => account,
        other => unreachable!("the request is answered by an operator, not by {other:?}"),
    }
}

fn digest_of(secret: &JoinSecret) -> [u8; 32] {
    let digest = digest(&SHA256, secret.reveal().as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
