//! The crate as its users see it: archives in, layers out, and everything hostile refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod archives;
mod layers;
mod overlay;
mod registry;
mod support;
