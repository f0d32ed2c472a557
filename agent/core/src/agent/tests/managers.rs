//! What the agent does with managers that come, go, fall silent or were deposed, case by case.

use super::script::{check, connected};

#[test]
fn a_gap_is_answered_by_asking_for_everything_once() {
    connected(
        "
        > delta 1.2 1.3 a=running
        send need-full
        > delta 1.3 1.4 a=running
        > full 1.4 a=running
        write a=running
        prepare a
        ",
    );
}

#[test]
fn a_deposed_leader_is_left() {
    connected(
        "
        > full 2.1
        write node epoch=2
        > full 1.9 a=running
        disconnect
        > wait 100
        connect m2:1
        ",
    );
}

#[test]
fn what_a_full_list_does_not_name_is_removed() {
    connected(
        "
        > delta 1.1 1.2 a=running b=ready
        write a=running
        write b=ready
        prepare a
        prepare b
        > prepared a
        start a
        > started a
        send a=running b=preparing
        > full 1.3
        write a=remove
        write b=remove ended=shutdown
        stop a
        cancel b
        send b=shutdown
        > prepared b
        remove b
        > exited a 143
        write a=remove ended=shutdown
        send a=shutdown
        > removed b
        forget b
        remove a
        > removed a
        forget a
        ",
    );
}

#[test]
fn another_clusters_manager_changes_nothing() {
    connected(
        "
        > delta 1.1 1.2 a=running
        write a=running
        prepare a
        > prepared a
        start a
        > started a
        send a=running
        > closed
        > wait 100
        connect m2:1
        > open
        register a=running
        > welcome-of-another-cluster
        disconnect
        > wait 200
        connect m1:1
        > open
        register a=running
        > full 1.2
        disconnect
        ",
    );
}

#[test]
fn everything_goes_on_without_a_manager() {
    connected(
        "
        > delta 1.1 1.2 a=running b=running
        write a=running
        write b=running
        prepare a
        prepare b
        > closed
        > prepared a
        start a
        > started a
        > prepared b
        start b
        > started b
        > exited b 1
        write b=running ended=failed
        > wait 100
        connect m2:1
        > not-leader m1:1
        connect m1:1
        > open
        register a=running b=failed
        > welcome
        > full 1.2 a=running b=running
        ",
    );
}

#[test]
fn a_node_finds_managers_that_were_made_while_it_was_connected() {
    connected(
        "
        > managers m3:1 m4:1
        write node epoch=1
        > managers m3:1
        write node epoch=1
        > managers m3:1
        > restart
        connect m3:1
        open network 1
        ",
    );
}

#[test]
fn a_manager_that_falls_silent_is_left() {
    connected(
        "
        > wait 1000
        send heartbeat
        > heartbeat
        > wait 1000
        send heartbeat
        > mesh 1.1
        program mesh
        > wait 1000
        send heartbeat
        > wait 1000
        send heartbeat
        > wait 1000
        disconnect
        > wait 100
        connect m2:1
        ",
    );
}

#[test]
fn how_often_an_agent_is_heard_is_told_anew_with_each_answer() {
    connected(
        "
        > wait 1000
        send heartbeat
        > heartbeat 3000
        > wait 1000
        send heartbeat
        > heartbeat 200
        > wait 2999
        > wait 1
        send heartbeat
        > heartbeat
        > wait 200
        send heartbeat
        ",
    );
}

#[test]
fn a_manager_that_does_not_lead_tells_of_others_and_takes_none_away() {
    check(
        "
        > wait 0
        connect m1:1
        > open
        register
        > managers m3:1 m1:1
        write node epoch=0
        > restart
        connect m3:1
        > open
        register
        ",
    );
}

#[test]
fn a_node_that_knows_only_managers_of_the_past_is_told_another_one() {
    check(
        "
        > wait 0
        connect m1:1
        > closed
        > wait 0
        > named m9:1
        write node epoch=0
        connect m9:1
        ",
    );
}
