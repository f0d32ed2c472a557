//! Operators: who is invited, who comes, who goes.

use swarm_model::{Actor, Enrolment, Invitation, OperatorAccount, OperatorId, Timestamp};

use super::{Admitted, Answer, Desk, Verdict};
use crate::api::{ApiError, InviteOperator, Kind};
use crate::lookup;
use crate::store::Action;

/// Accounts, and removed ones whose certificates may still be valid. At 0.5 KiB each, 2 MiB in every manager.
const MAX_OPERATORS: usize = 4_096;

impl Desk<'_> {
    pub(super) fn invite_operator(&mut self, invite: InviteOperator) -> Result<Verdict, ApiError> {
        self.need_cluster()?;
        let InviteOperator { mut name, role, secret, token_life } = invite;
        let id = OperatorId((self.draw_id)());
        if name.is_empty() {
            name = format!("operator-{:.6}", id);
        }
        if !OperatorAccount::is_name(&name) {
            return Err(ApiError::FailedPrecondition(format!(
                "{:?} cannot be an operator's name: at most 63 letters, digits and -_. that begin with a letter or digit",
                name.chars().take(64).collect::<String>()
            )));
        }
        if token_life.is_zero() || token_life > OperatorAccount::MAX_TOKEN_LIFE {
            return Err(ApiError::FailedPrecondition(format!(
                "a token may live for {} h at most",
                OperatorAccount::MAX_TOKEN_LIFE.as_secs() / 3_600
            )));
        }
        let operators = self.store.operators();
        let former = operators.called(&name);
        if former.is_some_and(|former| former.enrolment.is_some() && !former.is_lapsed(self.now)) {
            return Err(ApiError::AlreadyExists {
                what: format!("the name {name:?}"),
                holder: "an operator with a valid certificate".to_owned(),
                advice: "choose another one with --name, or remove that operator first (swarmctl cluster operator rm)",
            });
        }
        if former.is_none() && operators.count() >= MAX_OPERATORS {
            return Err(ApiError::FailedPrecondition(format!(
                "there are {MAX_OPERATORS} operators, removed ones with valid certificates among them: no more are possible"
            )));
        }
        let account = OperatorAccount {
            id,
            name,
            role,
            created_at: self.now,
            created_by: self.actor(),
            invitation: Some(Invitation { secret, expires_at: self.now + token_life }),
            enrolment: None,
        };
        let answer = Answer::Operator(account.id);
        Ok(Admitted::one(Action::InviteOperator(Box::new(account)), answer))
    }

    pub(super) fn enrol_operator(&mut self, secret: [u8; 32], key: [u8; 32]) -> Result<Verdict, ApiError> {
        self.need_cluster()?;
        let mut accounts = self.store.operators().accounts();
        let is_invited = |account: &OperatorAccount| {
            account.invitation.as_ref().is_some_and(|invitation| invitation.secret == secret)
        };
        let is_enrolled = |account: &OperatorAccount| {
            account.enrolment.as_ref().is_some_and(|enrolment| enrolment.secret == secret)
        };
        let account = accounts.find(|account| is_invited(account) || is_enrolled(account));
        let account = account.ok_or_else(token_refused)?;
        match (&account.invitation, &account.enrolment) {
            (Some(invitation), _) if invitation.expires_at > self.now => {}
            (None, Some(enrolment)) if enrolment.key == key => {
                return Ok(Verdict::AlreadyDone(Answer::Operator(account.id)));
            }
            (Some(_) | None, _) => return Err(token_refused()),
        }
        let enrolment = Enrolment { secret, key, at: self.now, valid_until: self.certificate_end() };
        let enrol = Action::EnrolOperator { operator: account.id, enrolment: Box::new(enrolment) };
        Ok(Admitted::one(enrol, Answer::Operator(account.id)))
    }

    pub(super) fn renew_operator(&mut self, operator: OperatorId) -> Result<Verdict, ApiError> {
        let account = self.store.operators().account(operator).ok_or_else(|| ApiError::NotFound {
            kind: Kind::Operator,
            query: operator.to_string(),
            candidates: Vec::new(),
        })?;
        let renew = Action::RenewOperator { operator, valid_until: self.certificate_end() };
        Ok(Admitted::one(renew, Answer::Operator(account.id)))
    }

    pub(super) fn remove_operator(&mut self, query: &str) -> Result<Verdict, ApiError> {
        self.need_cluster()?;
        let account = lookup::operator(self.store, query)?;
        let remove = Action::RemoveOperator { operator: account.id, by: self.actor() };
        Ok(Admitted::one(remove, Answer::Done))
    }

    fn certificate_end(&self) -> Timestamp {
        self.now + OperatorAccount::CERTIFICATE_LIFE
    }

    fn actor(&self) -> String {
        self.by.map_or_else(|| "system".to_owned(), |Actor { name, .. }| name.clone())
    }
}

/// Which of the reasons it is would tell a stranger too much.
pub(super) fn token_refused() -> ApiError {
    ApiError::Denied(
        "the operator token is not valid here: it was used, has expired, was withdrawn, or is of another cluster; \
         `swarmctl cluster operator-token` on a manager makes a new one"
            .to_owned(),
    )
}
