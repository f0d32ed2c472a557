//! What clients asked and were told, against a reference model of the API.
//!
//! Services and images are registers. A version is the log index of the write that made it, so versions order all writes
//! of an object, and linearizability per object comes to this: one version has one content; nobody is shown an older
//! version than one that an operation had shown before this one began; an update from version a to version b means that
//! there is none between; and what was acknowledged stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_manager_core::api::{ApiError, Request, Response};
use swarm_manager_core::door::RequestId;
use swarm_model::{Service, ServiceSpec};

use super::checks::Truth;

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    /// By id.
    Service(String),
    Image(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Spec(Arc<ServiceSpec>),
    Digest(String),
}

#[derive(Debug, Default)]
struct Register {
    /// Every version that an answer showed.
    versions: BTreeMap<u64, Content>,
    /// Highest version that an answer showed.
    floor: u64,
    /// Versions that are acknowledged writes.
    acknowledged: BTreeSet<u64>,
    /// Removals that were asked for: answered, or perhaps done.
    removals: Removals,
}

#[derive(Debug, Default, Clone, Copy)]
struct Removals {
    /// Asked for, and not refused.
    possible: u32,
    acknowledged: bool,
}

/// An operation under way: what was known when it began.
#[derive(Debug)]
struct Invocation {
    floors: BTreeMap<Object, u64>,
    removed: BTreeSet<Object>,
}

#[derive(Debug, Default)]
pub struct History {
    registers: BTreeMap<Object, Register>,
    under_way: BTreeMap<RequestId, Invocation>,
    removals: BTreeMap<RequestId, Object>,
    /// Answers of substance.
    pub answered: u64,
}

type Checked = Result<(), String>;

impl History {
    pub fn invoke(&mut self, id: RequestId, request: &Request) {
        let shown = self.registers.iter().filter(|(_, register)| register.floor > 0);
        let removed = self.registers.iter().filter(|(_, register)| register.removals.acknowledged);
        let invocation = Invocation {
            floors: shown.map(|(object, register)| (object.clone(), register.floor)).collect(),
            removed: removed.map(|(object, _)| object.clone()).collect(),
        };
        self.under_way.insert(id, invocation);
        if let Request::RemoveService { service } = request {
            let object = Object::Service(service.clone());
            self.registers.entry(object.clone()).or_default().removals.possible += 1;
            self.removals.insert(id, object);
        }
    }

    /// It certainly changed nothing.
    pub fn refused(&mut self, id: RequestId) {
        self.under_way.remove(&id);
        if let Some(register) = self.removals.remove(&id).and_then(|object| self.registers.get_mut(&object)) {
            register.removals.possible -= 1;
        }
    }

    /// It may be done, or be done later, or never.
    pub fn unknown(&mut self, id: RequestId) {
        self.under_way.remove(&id);
        self.removals.remove(&id);
    }

    /// # Errors
    /// The answer is one that a single copy of the objects would not have given.
    pub fn complete(
        &mut self,
        id: RequestId,
        request: &Request,
        result: &Result<Response, ApiError>,
    ) -> Checked {
        match result {
            Err(ApiError::Unavailable(_)) => {
                self.unknown(id);
                Ok(())
            }
            Err(ApiError::NotFound { .. }) => {
                let checked = self.missing(id, request);
                self.refused(id);
                checked
            }
            Err(_) => {
                self.refused(id);
                Ok(())
            }
            Ok(response) => match self.under_way.remove(&id) {
                Some(began) => self.compare(id, &began, request, response),
                None => Ok(()),
            },
        }
    }

    fn compare(
        &mut self,
        id: RequestId,
        began: &Invocation,
        request: &Request,
        response: &Response,
    ) -> Checked {
        self.answered += 1;
        match (request, response) {
            (Request::CreateService { spec, .. }, Response::Service(view)) => {
                self.created(began, spec, &view.service)
            }
            (Request::UpdateService { version, spec, .. }, Response::Service(view)) => {
                self.updated(began, *version, spec, &view.service)
            }
            (Request::RollbackService { version, .. }, Response::Service(view)) => {
                let object = Object::Service(view.service.id.to_string());
                self.write(
                    object,
                    began,
                    *version,
                    &Content::Spec(view.service.spec.clone()),
                    view.service.version,
                )
            }
            (Request::GetService { .. }, Response::Service(view)) => {
                let content = Content::Spec(view.service.spec.clone());
                self.show(Object::Service(view.service.id.to_string()), began, &content, view.service.version)
            }
            (Request::RemoveService { .. }, Response::Done) => {
                if let Some(object) = self.removals.remove(&id) {
                    self.registers.entry(object).or_default().removals.acknowledged = true;
                }
                Ok(())
            }
            (Request::PutImage(image), Response::Image(stored)) => {
                let content = Content::Digest(image.digest.clone());
                let object = Object::Image(image.name.clone());
                let version = stored.version;
                if stored.digest != image.digest {
                    return self.show(object, began, &Content::Digest(stored.digest.clone()), version);
                }
                self.show(object.clone(), began, &content, version)?;
                self.acknowledge(object, version);
                Ok(())
            }
            (Request::ListImages, Response::Images(images)) => {
                let listed: BTreeSet<&str> = images.iter().map(|image| image.name.as_str()).collect();
                for object in began.floors.keys() {
                    if let Object::Image(name) = object
                        && !listed.contains(name.as_str())
                    {
                        return Err(format!("image {name} was shown before and is not listed"));
                    }
                }
                images.iter().try_for_each(|image| {
                    let content = Content::Digest(image.digest.clone());
                    self.show(Object::Image(image.name.clone()), began, &content, image.version)
                })
            }
            _ => Ok(()),
        }
    }

    fn created(&mut self, began: &Invocation, spec: &Arc<ServiceSpec>, service: &Service) -> Checked {
        let object = Object::Service(service.id.to_string());
        self.show(object.clone(), began, &Content::Spec(service.spec.clone()), service.version)?;
        if service.spec == *spec {
            self.acknowledge(object, service.version);
        }
        Ok(())
    }

    fn updated(
        &mut self,
        began: &Invocation,
        base: u64,
        spec: &Arc<ServiceSpec>,
        service: &Service,
    ) -> Checked {
        let object = Object::Service(service.id.to_string());
        if service.spec != *spec && service.version == base {
            return Err(format!("an update of {object:?} was acknowledged and changed nothing"));
        }
        self.write(object, began, base, &Content::Spec(service.spec.clone()), service.version)
    }

    /// A write from one version to another. One that changes nothing leaves the version as it is.
    fn write(
        &mut self,
        object: Object,
        began: &Invocation,
        base: u64,
        content: &Content,
        version: u64,
    ) -> Checked {
        self.show(object.clone(), began, content, version)?;
        let register = self.registers.entry(object.clone()).or_default();
        if version > base
            && let Some((between, _)) = register.versions.range(base + 1..version).next()
        {
            return Err(format!(
                "an update of {object:?} made for version {base} led to {version}, but there was version {between}"
            ));
        }
        self.acknowledge(object, version);
        Ok(())
    }

    fn acknowledge(&mut self, object: Object, version: u64) {
        self.registers.entry(object).or_default().acknowledged.insert(version);
    }

    /// An answer shows a version.
    fn show(&mut self, object: Object, began: &Invocation, content: &Content, version: u64) -> Checked {
        if let Some(floor) = began.floors.get(&object).filter(|floor| version < **floor) {
            return Err(format!("{object:?} was shown at version {version} after version {floor}"));
        }
        if began.removed.contains(&object) {
            return Err(format!("{object:?} was shown after its removal was acknowledged"));
        }
        let register = self.registers.entry(object.clone()).or_default();
        let known = register.versions.entry(version).or_insert_with(|| content.clone());
        if known != content {
            return Err(format!("{object:?} has two contents at version {version}"));
        }
        register.floor = register.floor.max(version);
        Ok(())
    }

    fn missing(&self, id: RequestId, request: &Request) -> Checked {
        let (Request::GetService { service } | Request::UpdateService { service, .. }) = request else {
            return Ok(());
        };
        let object = Object::Service(service.clone());
        let began = self.under_way.get(&id);
        let shown = began.is_some_and(|began| began.floors.contains_key(&object));
        let register = self.registers.get(&object);
        if shown && register.is_some_and(|register| register.removals.possible == 0) {
            return Err(format!("{object:?} was shown before, and nobody removed it, but it is not found"));
        }
        Ok(())
    }

    /// What was acknowledged is there.
    pub fn check(&self, truth: &Truth) -> Vec<String> {
        let lost = |(object, register): (&Object, &Register)| {
            let newest = *register.acknowledged.last().filter(|version| **version <= truth.applied)?;
            let stored = match object {
                Object::Service(id) => {
                    let service = truth.services.values().find(|it| it.id.to_string() == *id);
                    service.map(|it| (it.version, Content::Spec(it.spec.clone())))
                }
                Object::Image(name) => {
                    truth.images.get(name).map(|it| (it.version, Content::Digest(it.digest.clone())))
                }
            };
            match stored {
                None if register.removals.possible > 0 => None,
                None => Some(format!("{object:?} was acknowledged at version {newest} and is gone")),
                Some(_) if register.removals.acknowledged => None,
                Some((version, _)) if version < newest => {
                    Some(format!("{object:?} was acknowledged at version {newest} and is at {version}"))
                }
                Some((version, content)) => register
                    .versions
                    .get(&version)
                    .is_some_and(|shown| *shown != content)
                    .then(|| format!("{object:?} at version {version} is not what was shown")),
            }
        };
        self.registers.iter().filter_map(lost).collect()
    }

    /// Services whose removal was acknowledged, at the end.
    pub fn check_removed(&self, truth: &Truth) -> Vec<String> {
        let removed = self.registers.iter().filter(|(_, register)| register.removals.acknowledged);
        let there = removed.filter(|(object, _)| {
            truth.services.values().any(|it| Object::Service(it.id.to_string()) == **object)
        });
        there
            .map(|(object, _)| format!("the removal of {object:?} was acknowledged, but it is there"))
            .collect()
    }
}
