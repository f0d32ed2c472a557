//! What a manager does when the cluster's state says so.

use std::time::Duration;

use swarm_manager_core::door::Leadership;
use swarm_model::{Autolock, Id};
use swarm_pki::Expelled;
use tracing::error;

use crate::engine::Engine;
use crate::images::Images;
use crate::keys::{Keyring, UnlockKey};
use crate::text::chain;

/// Before it is tried again to replace the key of the disk.
const KEY_RETRY: Duration = Duration::from_secs(5);

/// Cuts the connections of nodes and operators that are removed.
pub(super) async fn expel(engine: Engine, expelled: Expelled) {
    let (mut nodes, mut operators) = (engine.removed(), engine.operators());
    loop {
        let mut removed: Vec<Id> = nodes.borrow_and_update().iter().map(|(node, _)| node.0).collect();
        removed.extend(operators.borrow_and_update().removed().map(|(operator, _)| operator.0));
        expelled.set(removed);
        let changed = tokio::select! {
            changed = nodes.changed() => changed,
            changed = operators.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Locks and unlocks the manager's disk as the cluster decides.
pub(super) async fn follow_autolock(engine: Engine, keyring: Keyring) {
    let mut autolock = engine.autolock();
    autolock.mark_changed();
    while autolock.changed().await.is_ok() {
        let Some(decided) = autolock.borrow_and_update().clone() else { continue };
        let keyring = keyring.clone();
        let written = tokio::task::spawn_blocking(move || lock_disk(&keyring, &decided)).await;
        if let Ok(Err(error)) = written {
            error!(
                error = chain(&*error),
                "the key of this manager's disk cannot be replaced; it is tried again"
            );
            tokio::time::sleep(KEY_RETRY).await;
            autolock.mark_changed();
        }
    }
}

fn lock_disk(keyring: &Keyring, decided: &Autolock) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let unlock = decided.unlock_key.as_ref().map(|key| key.reveal().parse::<UnlockKey>()).transpose()?;
    Ok(keyring.lock_with(unlock.as_ref(), decided.version)?)
}

/// A crash may have left image content without a name. Which has one is known once this manager leads.
pub(super) async fn clean_up_once(engine: Engine, images: Images) {
    let mut leadership = engine.leadership();
    if leadership.wait_for(|now| matches!(now, Leadership::Leader { .. })).await.is_ok() {
        images.collect_garbage();
    }
}
