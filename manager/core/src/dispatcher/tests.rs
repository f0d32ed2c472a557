//! Versions, gaps, gates and deadlines.

use std::net::Ipv4Addr;
use std::time::Duration;

use swarm_model::{
    HostPort, ManagerMessage, MeshDelta, NodeId, NodeState, PortMode, PortSpec, Protocol, ServiceId,
    TableVersion, TaskId, TaskState, TaskStatus, Timestamp,
};

use super::*;
use crate::door::{Effect, SessionId};

const SECOND: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_micros(millis * 1_000)
}

fn node(number: u8) -> NodeId {
    NodeId::from_u128(u128::from(number))
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 192, 4, last)
}

mod fleet {
    use super::*;

    #[test]
    fn a_node_is_down_after_three_missed_beats_and_not_before() {
        let mut fleet = Fleet::default();
        fleet.add(node(1), at(0), SECOND, Duration::ZERO);
        assert_eq!(fleet.state(node(1)), NodeState::Unknown);
        fleet.open(node(1), SessionId(1), at(10), SECOND);
        assert_eq!(fleet.state(node(1)), NodeState::Ready);
        fleet.heard(SessionId(1), at(2_500));
        assert!(fleet.expire(at(3_010)).is_empty());
        assert_eq!(fleet.next_deadline(), Some(at(5_500)));
        assert!(fleet.expire(at(5_499)).is_empty());
        let lost = fleet.expire(at(5_500));
        assert_eq!(lost.len(), 1);
        assert_eq!((lost[0].node, lost[0].session), (node(1), Some(SessionId(1))));
        assert_eq!(fleet.state(node(1)), NodeState::Down);
        assert_eq!(fleet.heard(SessionId(1), at(6_000)), None, "a lost session says nothing any more");
        fleet.open(node(1), SessionId(2), at(7_000), SECOND);
        assert_eq!(fleet.state(node(1)), NodeState::Ready);
        assert_eq!(fleet.next_deadline(), Some(at(10_000)));
    }

    #[test]
    fn a_closed_session_moves_nothing_but_gets_nothing_new() {
        let mut fleet = Fleet::default();
        fleet.add(node(1), at(0), SECOND, Duration::ZERO);
        fleet.open(node(1), SessionId(1), at(0), SECOND);
        assert!(fleet.is_reachable(node(1)));
        fleet.close(SessionId(1));
        assert_eq!(fleet.state(node(1)), NodeState::Ready);
        assert!(!fleet.is_reachable(node(1)));
        assert_eq!(fleet.expire(at(3_000)).len(), 1);
    }

    #[test]
    fn a_silent_session_is_a_worse_sign_than_a_closed_one() {
        let half = SECOND / 2;
        let mut fleet = Fleet::default();
        for number in 1..=2 {
            fleet.add(node(number), at(0), half, Duration::ZERO);
            fleet.open(node(number), SessionId(number.into()), at(0), half);
        }
        fleet.close(SessionId(2));
        let lost =
            |fleet: &mut Fleet, now| fleet.expire(at(now)).iter().map(|it| it.node).collect::<Vec<_>>();
        assert_eq!(lost(&mut fleet, 1_499), vec![]);
        assert_eq!(lost(&mut fleet, 1_500), vec![node(1)]);
        assert_eq!(lost(&mut fleet, 2_999), vec![]);
        assert_eq!(lost(&mut fleet, 3_000), vec![node(2)]);
        fleet.open(node(2), SessionId(3), at(4_000), half);
        assert_eq!(fleet.next_deadline(), Some(at(5_500)));
    }

    #[test]
    fn a_node_has_the_longer_one_of_two_intervals_until_it_knows_the_shorter_one() {
        let mut fleet = Fleet::default();
        fleet.add(node(1), at(0), SECOND, Duration::ZERO);
        fleet.open(node(1), SessionId(1), at(0), SECOND);
        fleet.tell_interval(node(1), SECOND / 2);
        assert!(fleet.expire(at(2_999)).is_empty(), "it may beat once more after a second");
        fleet.heard(SessionId(1), at(2_999));
        fleet.tell_interval(node(1), SECOND / 2);
        assert!(fleet.expire(at(4_498)).is_empty());
        assert_eq!(fleet.expire(at(4_499)).len(), 1);
        fleet.open(node(1), SessionId(2), at(5_000), SECOND / 2);
        fleet.tell_interval(node(1), 2 * SECOND);
        assert!(fleet.expire(at(10_999)).is_empty(), "it learns of it with the answer");
        assert_eq!(fleet.expire(at(11_000)).len(), 1);
    }

    #[test]
    fn a_newer_session_replaces_the_older_one() {
        let mut fleet = Fleet::default();
        fleet.add(node(1), at(0), SECOND, Duration::ZERO);
        assert_eq!(fleet.open(node(1), SessionId(1), at(0), SECOND), None);
        assert_eq!(fleet.open(node(1), SessionId(2), at(5), SECOND), Some(SessionId(1)));
        assert_eq!(fleet.close(SessionId(1)), None);
        assert!(fleet.is_reachable(node(1)));
    }

    #[test]
    fn a_new_leader_waits_longer_for_a_large_fleet() {
        let mut fleet = Fleet::default();
        fleet.add(node(1), at(0), SECOND, return_time(2_000));
        assert!(fleet.expire(at(12_999)).is_empty());
        assert_eq!(fleet.expire(at(13_000)).len(), 1);
        fleet.open(node(1), SessionId(1), at(14_000), SECOND);
        fleet.close(SessionId(1));
        assert_eq!(fleet.expire(at(17_000)).len(), 1, "one that was heard of has no more time than any");
    }

    #[test]
    fn the_interval_grows_with_the_fleet() {
        assert_eq!(heartbeat_interval(1_000, 3), SECOND);
        assert_eq!(heartbeat_interval(1_000, 1_500), SECOND);
        assert_eq!(heartbeat_interval(1_000, 15_000), 10 * SECOND);
    }
}

mod statuses {
    use super::*;

    fn status(state: TaskState, message: &str) -> TaskStatus {
        TaskStatus {
            state,
            at: at(0),
            message: message.to_owned(),
            error: String::new(),
            exit_code: None,
            oom_killed: false,
            pid: None,
        }
    }

    #[test]
    fn states_only_rise() {
        let task = TaskId::from_u128(1);
        let mut seen = Observations::default();
        assert_eq!(seen.note(task, status(TaskState::Preparing, "pulling 10 %"), at(1)), Seen::Rose);
        assert_eq!(seen.note(task, status(TaskState::Preparing, "pulling 20 %"), at(2)), Seen::Detail);
        assert_eq!(seen.get(task).map(|it| it.since), Some(at(1)));
        assert_eq!(seen.note(task, status(TaskState::Running, ""), at(3)), Seen::Rose);
        assert_eq!(seen.note(task, status(TaskState::Ready, ""), at(4)), Seen::Stale);
        assert_eq!(seen.note(task, status(TaskState::Failed, ""), at(5)), Seen::Rose);
        assert_eq!(seen.note(task, status(TaskState::Failed, "again"), at(6)), Seen::Stale);
        assert_eq!(seen.get(task).and_then(|it| it.running_since), Some(at(3)));
        seen.forget(task);
        assert_eq!(seen.len(), 0);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let task = TaskId::from_u128(1);
        let mut seen = Observations::default();
        seen.note(task, status(TaskState::Failed, &"é".repeat(5_000)), at(1));
        let message = &seen.get(task).unwrap().status.message;
        assert_eq!(message.len(), 1_024);
    }
}

mod gates {
    use super::*;

    #[test]
    fn a_gate_opens_by_acknowledgement_or_by_time() {
        let [first, second] = [1, 2].map(TaskId::from_u128);
        let mut gates = Gates::default();
        gates.hold(first, 4, at(0));
        gates.hold(second, 6, at(100));
        assert!(gates.is_held(first));
        assert_eq!(gates.open(3, at(1)), []);
        assert_eq!(gates.open(4, at(1)), [first]);
        assert!(!gates.is_held(first) && gates.is_held(second));
        assert_eq!(gates.next_deadline(), Some(at(2_100)));
        assert_eq!(gates.open(5, at(2_099)), []);
        assert_eq!(gates.open(5, at(2_100)), [second]);
        assert_eq!(gates.next_deadline(), None);
    }
}

mod mesh {
    use super::*;

    const WEB: ServiceId = ServiceId::from_u128(1);
    const PORT: (Protocol, u16) = (Protocol::Tcp, 8080);

    struct Bench {
        mesh: Mesh,
        now: u64,
    }

    impl Bench {
        fn new() -> Self {
            let mut mesh = Mesh::new(7);
            let port = PortSpec {
                protocol: Protocol::Tcp,
                mode: PortMode::Ingress,
                target: 80,
                published: Some(8080),
            };
            mesh.set_service(WEB, &[port], &[]);
            mesh.set_node(1, Ipv4Addr::LOCALHOST);
            mesh.open_up();
            Self { mesh, now: 0 }
        }

        fn flush(&mut self) -> Vec<(SessionId, MeshDelta)> {
            self.now += 1_000;
            let mut effects = Vec::new();
            self.mesh.flush(at(self.now), &mut effects);
            effects
                .into_iter()
                .filter_map(|effect| match effect {
                    Effect::Session { session, message: ManagerMessage::Mesh(delta) } => {
                        Some((session, delta))
                    }
                    _ => None,
                })
                .collect()
        }

        fn backends(delta: &MeshDelta) -> usize {
            delta.ports[&PORT].as_ref().map_or(0, Vec::len)
        }
    }

    fn version(number: u64) -> TableVersion {
        TableVersion { epoch: 7, number }
    }

    #[test]
    fn one_version_is_on_the_way_and_the_next_holds_all_that_came_meanwhile() {
        let mut bench = Bench::new();
        bench.mesh.connect(node(1), SessionId(1));
        let sent = bench.flush();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].1.base, sent[0].1.version), (None, version(1)));
        for last in 11..14 {
            bench.mesh.add_backend(WEB, address(last));
            assert!(bench.flush().is_empty(), "the first version is not acknowledged");
        }
        bench.mesh.acknowledge(node(1), version(1));
        let sent = bench.flush();
        assert_eq!((sent[0].1.base, sent[0].1.version), (Some(version(1)), version(4)));
        assert_eq!(Bench::backends(&sent[0].1), 3);
        assert!(sent[0].1.nodes.is_empty(), "only what changed is sent");
        assert!(bench.flush().is_empty());
    }

    #[test]
    fn news_of_nodes_alone_waits_in_a_large_fleet_and_goes_along_with_a_backend() {
        let mut bench = Bench::new();
        let nodes = || (1..=2_000).map(NodeId::from_u128);
        for (number, node) in (1..).zip(nodes()) {
            bench.mesh.connect(node, SessionId(number));
        }
        bench.flush();
        nodes().for_each(|node| bench.mesh.acknowledge(node, version(1)));
        bench.mesh.set_node(2, Ipv4Addr::LOCALHOST);
        bench.now -= 800;
        assert!(bench.flush().is_empty(), "a backend would not wait any more, a node does");
        bench.mesh.add_backend(WEB, address(11));
        bench.now -= 999;
        let sent = bench.flush();
        assert_eq!((sent.len(), sent[0].1.nodes.len(), sent[0].1.ports.len()), (2_000, 1, 1));
    }

    #[test]
    fn a_gap_is_answered_with_everything() {
        let mut bench = Bench::new();
        bench.mesh.connect(node(1), SessionId(1));
        bench.flush();
        bench.mesh.acknowledge(node(1), version(1));
        bench.mesh.send_all_again(node(1));
        let sent = bench.flush();
        assert_eq!((sent[0].1.base, sent[0].1.version), (None, version(1)));
        assert_eq!((sent[0].1.nodes.len(), sent[0].1.ports.len()), (1, 1));
    }

    #[test]
    fn all_have_acknowledged_only_when_the_last_one_has() {
        let mut bench = Bench::new();
        assert_eq!(bench.mesh.acknowledged_by_all(), u64::MAX);
        bench.mesh.connect(node(1), SessionId(1));
        bench.mesh.connect(node(2), SessionId(2));
        bench.flush();
        bench.mesh.acknowledge(node(1), version(1));
        assert_eq!(bench.mesh.acknowledged_by_all(), 0);
        bench.mesh.acknowledge(node(2), TableVersion { epoch: 6, number: 1 });
        assert_eq!(bench.mesh.acknowledged_by_all(), 0, "another leader's version counts for nothing");
        bench.mesh.acknowledge(node(2), version(1));
        assert_eq!(bench.mesh.acknowledged_by_all(), 1);
        bench.mesh.add_backend(WEB, address(11));
        assert_eq!(bench.mesh.version_of_changes(), 2);
        bench.flush();
        bench.mesh.acknowledge(node(1), version(2));
        bench.mesh.disconnect(node(2));
        assert_eq!(bench.mesh.acknowledged_by_all(), 2);
    }

    #[test]
    fn a_removed_port_reaches_those_who_knew_it() {
        let mut bench = Bench::new();
        bench.mesh.connect(node(1), SessionId(1));
        bench.flush();
        bench.mesh.acknowledge(node(1), version(1));
        bench.mesh.remove_service(WEB);
        let sent = bench.flush();
        assert_eq!(sent[0].1.ports[&PORT], None);
        bench.mesh.connect(node(2), SessionId(2));
        let sent = bench.flush();
        assert!(sent[0].1.ports.is_empty(), "a new agent never hears of it");
    }

    #[test]
    fn a_port_that_moved_to_another_service_stays() {
        let mut bench = Bench::new();
        let port = HostPort { protocol: Protocol::Tcp, published: 8080 };
        let spec = PortSpec {
            protocol: port.protocol,
            mode: PortMode::Ingress,
            target: 81,
            published: Some(port.published),
        };
        let other = ServiceId::from_u128(2);
        bench.mesh.set_service(other, &[spec], &[address(20)]);
        bench.mesh.remove_service(WEB);
        bench.mesh.connect(node(1), SessionId(1));
        let sent = bench.flush();
        assert_eq!(Bench::backends(&sent[0].1), 1);
    }

    #[test]
    fn nothing_is_sent_before_the_truth_is_known() {
        let mut mesh = Mesh::new(8);
        mesh.connect(node(1), SessionId(1));
        let mut effects = Vec::new();
        mesh.flush(at(0), &mut effects);
        assert!(effects.is_empty());
        mesh.open_up();
        mesh.flush(at(1), &mut effects);
        assert_eq!(effects.len(), 1);
    }
}
