//! What the agent does with tasks, case by case. What it does with managers: [`super::managers`].

use super::script::{check, connected};

#[test]
fn a_task_is_prepared_started_and_reported_once() {
    connected(
        "
        > delta 1.1 1.2 a=running
        write a=running
        prepare a
        > prepared a
        start a
        > started a
        send a=running
        ",
    );
}

#[test]
fn ready_is_prepared_and_not_started_until_running_is_desired() {
    connected(
        "
        > delta 1.1 1.2 a=ready
        write a=ready
        prepare a
        > wait 99
        > wait 1
        send a=preparing
        > progress a pulling 63 %
        > wait 100
        send a=preparing(pulling 63 %)
        > prepared a
        send a=ready
        > delta 1.2 1.3 a=running
        write a=running
        start a
        > started a
        send a=running
        ",
    );
}

#[test]
fn shutdown_stops_with_the_grace_period_and_keeps_the_record() {
    connected(
        "
        > delta 1.1 1.2 a=running
        write a=running
        prepare a
        > prepared a
        start a
        > started a
        send a=running
        > delta 1.2 1.3 a=shutdown
        write a=shutdown
        stop a
        > exited a 143
        write a=shutdown ended=shutdown
        send a=shutdown
        > delta 1.3 1.4 -a
        write a=remove ended=shutdown
        remove a
        > removed a
        forget a
        ",
    );
}

#[test]
fn what_ignores_the_stop_signal_is_killed() {
    connected(
        "
        > delta 1.1 1.2 a=running
        write a=running
        prepare a
        > prepared a
        start a
        > started a
        send a=running
        > delta 1.2 1.3 a=remove
        write a=remove
        stop a
        > wait 9999
        send heartbeat
        > heartbeat
        > wait 1
        kill a
        > exited a 137
        write a=remove ended=shutdown
        remove a
        send a=shutdown
        > removed a still there
        > wait 999
        send heartbeat
        > wait 1
        remove a
        > removed a
        forget a
        ",
    );
}

#[test]
fn a_task_that_ends_by_itself_is_not_started_again() {
    connected(
        "
        > delta 1.1 1.2 a=running b=running
        write a=running
        write b=running
        prepare a
        prepare b
        > prepared a
        start a
        > prepared b
        > started a
        start b
        send a=running b=starting
        > started b
        send b=running
        > exited a 0
        write a=running ended=complete
        send a=complete
        > exited b 3
        write b=running ended=failed
        send b=failed
        > full 1.3 a=running b=running
        > restart
        connect m2:1
        open network 1
        > open
        register a=complete b=failed
        > welcome
        > full 1.4 a=running b=running
        ",
    );
}

#[test]
fn failures_name_their_cause() {
    connected(
        "
        > delta 1.1 1.2 a=running b=running
        write a=running
        write b=running
        prepare a
        prepare b
        > prepared a image shop/web:9: not found
        write a=running ended=rejected
        send a=rejected(image shop/web:9: not found) b=preparing
        > prepared b
        start b
        > started b command not found
        write b=running ended=failed
        send b=failed(command not found)
        ",
    );
}

#[test]
fn the_removal_of_an_unknown_task_is_answered() {
    connected(
        "
        > delta 1.1 1.2 -z
        send z=shutdown
        ",
    );
}

#[test]
fn what_may_pass_is_tried_again_before_the_task_is_rejected() {
    connected(
        "
        > delta 1.1 1.2 a=running b=running
        write a=running
        write b=running
        prepare a
        prepare b
        > prepared a transient no answer
        > prepared b transient no answer
        > wait 100
        send a=preparing(trying again: no answer) b=preparing(trying again: no answer)
        > delta 1.2 1.3 b=shutdown
        write b=shutdown ended=shutdown
        send b=shutdown
        > wait 400
        prepare a
        > prepared a transient no answer
        > wait 100
        send a=preparing(trying again: no answer)
        > wait 900
        send heartbeat
        prepare a
        > prepared a not found
        write a=running ended=rejected
        send a=rejected(not found)
        ",
    );
}

#[test]
fn a_restarted_agent_goes_on_with_what_it_finds() {
    connected(
        "
        > delta 1.1 1.2 a=running b=running
        write a=running
        write b=running
        prepare a
        prepare b
        > prepared a
        start a
        > started a
        send a=running b=preparing
        > found a running
        connect m2:1
        open network 1
        > open
        register a=running b=accepted
        > welcome
        > full 1.3 a=running b=running
        prepare b
        > found a exited 0
        connect m2:1
        write a=running ended=complete
        open network 1
        ",
    );
}

#[test]
fn a_reboot_fails_what_ran_and_starts_nothing() {
    connected(
        "
        > delta 1.1 1.2 a=running b=ready
        write a=running
        write b=ready
        prepare a
        prepare b
        > reboot
        connect m2:1
        write a=running ended=failed
        open network 1
        > open
        register a=failed(the node was rebooted) b=accepted
        > welcome
        > full 1.3 a=running b=ready
        prepare b
        ",
    );
}

#[test]
fn a_container_without_a_record_waits_for_the_managers_word() {
    check(
        "
        > found a running
        connect m1:1
        > open
        register
        > welcome
        write node epoch=0
        open network 1
        > full 1.1 a=running
        write node epoch=1
        write a=running
        send a=running
        > found b running
        connect m2:1
        open network 1
        > open
        register a=accepted
        > welcome
        > full 1.2
        write a=remove ended=shutdown
        remove b
        send a=shutdown
        > removed b
        forget b
        remove a
        ",
    );
}

#[test]
fn a_port_of_the_node_is_not_taken_from_a_task_that_still_stops() {
    connected(
        "
        > delta 1.1 1.2 a=running:443
        write a=running
        prepare a
        > prepared a
        start a
        > started a
        send a=running
        > full 2.1 b=running:443
        write node epoch=2
        write a=remove
        write b=running
        stop a
        prepare b
        > prepared b
        > wait 100
        send b=ready(waits for task 000000000000000000000002p of this node to give up its port or address)
        > exited a 0
        write a=remove ended=shutdown
        start b
        remove a
        send a=shutdown b=starting
        > started b
        send b=running
        ",
    );
}

#[test]
fn the_mesh_is_programmed_one_at_a_time_and_acknowledged() {
    connected(
        "
        > mesh 1.1
        program mesh
        > mesh 1.1 1.2
        > mesh 1.2 1.3
        > mesh-programmed
        send mesh-applied 1.1
        program mesh
        > mesh-failed
        > wait 1999
        send heartbeat
        > wait 1
        program mesh
        > mesh-programmed
        send mesh-applied 1.3
        > mesh 1.2 1.4
        send need-full
        > mesh 1.3
        send mesh-applied 1.3
        ",
    );
}

#[test]
fn starts_wait_for_a_free_place() {
    connected(
        "
        > delta 1.1 1.2 a=running b=running c=running
        write a=running
        write b=running
        write c=running
        prepare a
        prepare b
        > prepared b
        prepare c
        start b
        > prepared a
        > delta 1.2 1.3 -a
        write a=remove ended=shutdown
        remove a
        send a=shutdown b=starting c=preparing
        > started b
        send b=running
        ",
    );
}
