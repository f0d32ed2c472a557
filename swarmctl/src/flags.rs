//! Flags of `service create`, `service update` and `run`, and what they do to a spec.

mod create;
mod task;
mod update;

pub use create::CreateFlags;
pub use update::UpdateFlags;
