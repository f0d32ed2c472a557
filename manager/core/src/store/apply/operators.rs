//! Actions on operators.

use swarm_model::{Enrolment, OperatorAccount, OperatorId, RemovedOperator, Timestamp};

use super::{ApplyError, Changed, Result, Stamp};
use crate::store::Store;
use crate::store::object::Key;

impl Store {
    pub(super) fn invite_operator(&mut self, stamp: Stamp, account: OperatorAccount) -> Result {
        if let Some(former) = self.operators.called(&account.name).map(|former| former.id) {
            let former = self.operators.account(former).ok_or(ApplyError::Gone("operator"))?;
            // An open invitation may be replaced; what somebody holds a certificate for may not.
            if former.enrolment.is_some() && !former.is_lapsed(stamp.at) {
                return Err(ApplyError::NameTaken(account.name));
            }
            let former = former.id;
            self.operators.take(former);
            self.unsaved.insert(Key::Operator(former));
        }
        let id = account.id;
        self.operators.put(OperatorAccount { created_at: stamp.at, ..account });
        self.unsaved.insert(Key::Operator(id));
        Ok(Changed::Operator(id))
    }

    pub(super) fn enrol_operator(&mut self, stamp: Stamp, id: OperatorId, enrolment: Enrolment) -> Result {
        let account = self.operators.account(id).ok_or(ApplyError::TokenSpent)?;
        let invited = account.invitation.as_ref().is_some_and(|invitation| {
            invitation.secret == enrolment.secret && invitation.expires_at > stamp.at
        });
        if !invited {
            return Err(ApplyError::TokenSpent);
        }
        let enrolment = Some(Enrolment { at: stamp.at, ..enrolment });
        let account = OperatorAccount { invitation: None, enrolment, ..(**account).clone() };
        self.operators.put(account);
        self.unsaved.insert(Key::Operator(id));
        Ok(Changed::Operator(id))
    }

    pub(super) fn renew_operator(&mut self, id: OperatorId, valid_until: Timestamp) -> Result {
        let mut account = (**self.operators.account(id).ok_or(ApplyError::Gone("operator"))?).clone();
        let enrolment = account.enrolment.as_mut().ok_or(ApplyError::Gone("operator's certificate"))?;
        enrolment.valid_until = valid_until.max(enrolment.valid_until);
        self.operators.put(account);
        self.unsaved.insert(Key::Operator(id));
        Ok(Changed::Operator(id))
    }

    pub(super) fn remove_operator(&mut self, stamp: Stamp, id: OperatorId, by: String) -> Result {
        let account = self.operators.take(id).ok_or(ApplyError::Gone("operator"))?;
        self.unsaved.insert(Key::Operator(id));
        self.operators.put_removed(id, RemovedOperator::new(account.name.clone(), by, stamp.at));
        self.unsaved.insert(Key::RemovedOperator(id));
        self.unsaved.extend(self.operators.expire(stamp.at).into_iter().map(Key::RemovedOperator));
        Ok(Changed::Operator(id))
    }
}
