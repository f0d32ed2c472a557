//! Which tasks a subscription is about, and how far each of them was read. A value: it asks nobody.

use std::collections::{BTreeMap, BTreeSet};

use swarm_manager_core::api::TaskView;
use swarm_model::{NodeId, TaskId, TaskState};

/// A task's way from being seen to having been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Its node is to be asked.
    Due,
    /// By the route of this number.
    Reading(u64),
    /// Its node cannot be asked now.
    Unreachable,
    Read,
}

#[derive(Debug, Clone)]
pub struct TrackedTask {
    pub node: NodeId,
    pub hostname: String,
    pub service_name: String,
    pub slot: u32,
    /// Time of the last entry; 0 before the first.
    pub read_up_to: u64,
    progress: Progress,
}

/// All tasks of a subscription.
#[derive(Debug, Default)]
pub struct Tracked {
    tasks: BTreeMap<TaskId, TrackedTask>,
    /// Those that have not ended, wherever they are.
    live: BTreeSet<TaskId>,
    /// How many were ever seen.
    seen: BTreeSet<TaskId>,
}

/// One question to one node.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    pub node: NodeId,
    pub tasks: BTreeSet<TaskId>,
    /// 0: from the beginning of what is wanted.
    pub read_up_to: u64,
}

impl Tracked {
    /// A task is asked for once its agent has spoken of it: before, the agent may not know it.
    pub fn observe(&mut self, view: &TaskView) {
        let task = &view.task;
        self.seen.insert(task.id);
        if task.outcome.is_some() || view.status.state.is_final() {
            self.live.remove(&task.id);
        } else {
            self.live.insert(task.id);
        }
        let Some(node) = task.node else { return };
        if view.status.state >= TaskState::Accepted {
            self.tasks.entry(task.id).or_insert_with(|| TrackedTask {
                node,
                hostname: view.node_hostname.to_string(),
                service_name: view.service_name.to_string(),
                slot: task.slot,
                read_up_to: 0,
                progress: Progress::Due,
            });
        }
    }

    /// It is forgotten by the managers; what is being read of it goes on.
    pub fn forget(&mut self, task: TaskId) {
        self.live.remove(&task);
        if self.tasks.get(&task).is_some_and(|known| !matches!(known.progress, Progress::Reading(_))) {
            self.tasks.remove(&task);
        }
    }

    /// What is to be asked now: tasks of one node that begin at the same time are one question.
    pub fn questions(&self) -> Vec<Question> {
        let mut questions: BTreeMap<(NodeId, u64), BTreeSet<TaskId>> = BTreeMap::new();
        for (id, task) in self.tasks.iter().filter(|(_, task)| task.progress == Progress::Due) {
            questions.entry((task.node, task.read_up_to)).or_default().insert(*id);
        }
        let question = |((node, read_up_to), tasks)| Question { node, tasks, read_up_to };
        questions.into_iter().map(question).collect()
    }

    pub fn asked(&mut self, tasks: &BTreeSet<TaskId>, route: u64) {
        self.set(tasks, Progress::Reading(route));
    }

    pub fn unreachable(&mut self, tasks: &BTreeSet<TaskId>) {
        self.set(tasks, Progress::Unreachable);
    }

    fn set(&mut self, tasks: &BTreeSet<TaskId>, progress: Progress) {
        for task in tasks {
            if let Some(task) = self.tasks.get_mut(task) {
                task.progress = progress;
            }
        }
    }

    /// The route came to its end; what it broke off is due or not, as the caller says then.
    pub fn ended(&mut self, route: u64) -> BTreeSet<TaskId> {
        let mut of_route = BTreeSet::new();
        for (id, task) in &mut self.tasks {
            if task.progress == Progress::Reading(route) {
                task.progress = Progress::Read;
                of_route.insert(*id);
            }
        }
        of_route
    }

    /// What could not be asked of its node is due again.
    pub fn retry(&mut self) {
        for task in self.tasks.values_mut().filter(|task| task.progress == Progress::Unreachable) {
            task.progress = Progress::Due;
        }
    }

    /// Those of `tasks` that may still write.
    pub fn still_live(&self, tasks: &BTreeSet<TaskId>) -> BTreeSet<TaskId> {
        tasks.intersection(&self.live).copied().collect()
    }

    pub fn task_mut(&mut self, task: TaskId) -> Option<&mut TrackedTask> {
        self.tasks.get_mut(&task)
    }

    /// Something is being read or about to be.
    pub fn is_busy(&self) -> bool {
        let busy = |task: &TrackedTask| matches!(task.progress, Progress::Due | Progress::Reading(_));
        self.tasks.values().any(busy)
    }

    /// Nothing that was seen can write any more, and at least `expected` tasks were seen.
    pub fn all_ended(&self, expected: usize) -> bool {
        self.live.is_empty() && self.seen.len() >= expected
    }

    /// The name of a node that these tasks are on, and what they are called: for a notice.
    pub fn names(&self, tasks: &BTreeSet<TaskId>) -> (String, String) {
        let known: Vec<_> = tasks.iter().filter_map(|task| self.tasks.get(task)).collect();
        let hostname = known.first().map(|task| task.hostname.clone()).unwrap_or_default();
        let names: BTreeSet<String> =
            known.iter().map(|task| format!("{}.{}", task.service_name, task.slot)).collect();
        (hostname, names.into_iter().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use swarm_model::{DesiredState, Outcome, ServiceId, Task, TaskStatus, Timestamp};

    use super::*;

    fn view(id: u128, node: Option<u128>, state: TaskState) -> TaskView {
        let outcome = state.is_final().then(|| Outcome {
            state,
            exit_code: Some(0),
            oom_killed: false,
            reason: String::new(),
            at: Timestamp::ZERO,
            ran_since: None,
        });
        let task = Task {
            id: TaskId::from_u128(id),
            service: ServiceId::from_u128(9),
            slot: 1,
            revision: 1,
            version: 1,
            created_at: Timestamp::ZERO,
            desired_since: Timestamp::ZERO,
            desired: DesiredState::Running,
            node: node.map(NodeId::from_u128),
            address: None,
            not_before: None,
            restarts: 0,
            outcome,
        };
        let status = TaskStatus {
            state,
            at: Timestamp::ZERO,
            message: String::new(),
            error: String::new(),
            exit_code: None,
            oom_killed: false,
            pid: None,
        };
        TaskView {
            task: Arc::new(task),
            status,
            service_name: "web".into(),
            node_hostname: "node-1".into(),
            spec: None,
        }
    }

    fn ids(ids: &[u128]) -> BTreeSet<TaskId> {
        ids.iter().copied().map(TaskId::from_u128).collect()
    }

    #[test]
    fn nodes_are_asked_once_their_agents_know_the_task() {
        let mut tracked = Tracked::default();
        tracked.observe(&view(1, None, TaskState::Pending));
        tracked.observe(&view(2, Some(5), TaskState::Assigned));
        assert!(tracked.questions().is_empty() && !tracked.is_busy());
        tracked.observe(&view(2, Some(5), TaskState::Preparing));
        tracked.observe(&view(3, Some(5), TaskState::Running));
        let node = NodeId::from_u128(5);
        assert_eq!(tracked.questions(), [Question { node, tasks: ids(&[2, 3]), read_up_to: 0 }]);
        tracked.asked(&ids(&[2, 3]), 7);
        assert!(tracked.questions().is_empty() && tracked.is_busy());
        assert_eq!(tracked.ended(7), ids(&[2, 3]));
        tracked.observe(&view(3, Some(5), TaskState::Running));
        assert!(tracked.questions().is_empty() && !tracked.is_busy());
    }

    #[test]
    fn what_broke_off_is_asked_for_from_where_it_was() {
        let mut tracked = Tracked::default();
        tracked.observe(&view(1, Some(5), TaskState::Running));
        tracked.asked(&ids(&[1]), 7);
        tracked.task_mut(TaskId::from_u128(1)).unwrap().read_up_to = 42;
        let broken = tracked.ended(7);
        tracked.unreachable(&broken);
        assert_eq!(tracked.names(&broken), ("node-1".to_owned(), "web.1".to_owned()));
        assert!(tracked.questions().is_empty());
        tracked.retry();
        assert_eq!(tracked.questions()[0].read_up_to, 42);
    }

    #[test]
    fn all_has_ended_when_nothing_seen_lives() {
        let mut tracked = Tracked::default();
        assert!(!tracked.all_ended(1));
        tracked.observe(&view(1, Some(5), TaskState::Running));
        assert!(!tracked.all_ended(1));
        tracked.observe(&view(1, Some(5), TaskState::Complete));
        assert!(tracked.all_ended(1) && !tracked.all_ended(2));
        tracked.forget(TaskId::from_u128(1));
        assert!(tracked.questions().is_empty());
    }
}
