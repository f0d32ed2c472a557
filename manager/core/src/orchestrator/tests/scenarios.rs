//! One text file per rule of the orchestrator.

use super::script::check;

macro_rules! scenarios {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(
                stringify!($name),
                include_str!(concat!("../../../tests/data/orchestrator/", stringify!($name), ".txt")),
            );
        }
    )*};
}

scenarios! {
    create_and_scale
    remove_service
    restart_backoff
    restart_conditions
    restart_attempts
    restart_without_delay
    rejected
    node_down
    orphans_kept
    new_leader
    drain
    drain_details
    mismatch
    update_start_first
    update_stop_first
    update_parallelism_and_delay
    update_what_is_dirty
    update_nothing_to_do
    update_rollback
    update_fails_in_monitor
    update_rollback_stop_first
    update_pause
    update_resume
    update_continue
    update_tolerated
    update_deadline
    update_by_hand_rolled_back
    update_overtaken
    update_and_scale
    update_and_drain
    update_and_node_down
    update_under_new_leader
    history
}
