//! What must hold in every plan, whatever happens in the world.

use super::super::ServicePlan;
use super::world::World;

/// What the checks remember from one plan to the next.
#[derive(Debug, Default)]
pub struct Memory {}

/// Checks a plan against the world that it was made for.
pub fn before(_world: &mut World, _plan: &ServicePlan) {}

/// Checks the world that a plan has made.
pub fn after(world: &mut World) {
    let Memory {} = world.checks;
}
