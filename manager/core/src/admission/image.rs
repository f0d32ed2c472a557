//! Names of the cluster's image store.

use swarm_model::{Image, PullSource, SpecError};

use super::{Admitted, Answer, Desk, MAX_IMAGES, Verdict};
use crate::api::{ApiError, Kind};
use crate::lookup;
use crate::store::Action;

/// Services named in a refusal.
const MAX_NAMED: usize = 5;
/// Longest canonical name.
const MAX_NAME_BYTES: usize = 512;

impl Desk<'_> {
    pub(super) fn put_image(&mut self, image: Image) -> Result<Verdict, ApiError> {
        self.need_cluster()?;
        if image.name.is_empty() {
            return Err(ApiError::Invalid(SpecError::Missing { field: "image" }));
        }
        if image.name.len() > MAX_NAME_BYTES {
            let bytes = image.name.len();
            return Err(ApiError::Invalid(SpecError::TooLong {
                field: "image",
                bytes,
                limit: MAX_NAME_BYTES,
            }));
        }
        let known = self.store.image(&image.name);
        if known.is_some_and(|known| known.digest == image.digest && known.platform == image.platform) {
            return Ok(Verdict::AlreadyDone(Answer::Image(image.name)));
        }
        if known.is_none() && self.store.images().count() >= MAX_IMAGES {
            let limit = MAX_IMAGES as u64;
            return Err(ApiError::TooLarge { what: "the number of images", size: limit + 1, limit });
        }
        let answer = Answer::Image(image.name.clone());
        Ok(Admitted::one(Action::PutImage(image), answer))
    }

    pub(super) fn remove_image(&mut self, name: &str, force: bool) -> Result<Verdict, ApiError> {
        if self.store.image(name).is_none() {
            return Err(image_not_found(self.store, name));
        }
        let users: Vec<&str> = self
            .store
            .services()
            .filter(|service| {
                let image = &service.spec.task.container.image;
                image.source == PullSource::Cluster && image.name == name
            })
            .map(|service| service.spec.name.as_str())
            .take(MAX_NAMED)
            .collect();
        if !force && !users.is_empty() {
            return Err(ApiError::FailedPrecondition(format!(
                "image {name} is used by {}; remove or update them first, or remove the image with --force",
                users.join(", ")
            )));
        }
        Ok(Admitted::one(Action::RemoveImage { name: name.to_owned() }, Answer::Done))
    }
}

pub(crate) fn image_not_found(store: &crate::store::Store, name: &str) -> ApiError {
    let candidates = lookup::similar(name, store.images().map(|image| image.name.as_str()));
    ApiError::NotFound { kind: Kind::Image, query: name.chars().take(MAX_NAME_BYTES).collect(), candidates }
}
