//! The cluster's words in Rust: ids, specs, nodes, tasks, the task state machine, placement constraints.
//!
//! Values only: no I/O, no clock, no randomness. Wire types become these at the door (`swarm-proto`), and behind the
//! door nothing that must be there is optional and nothing is left unparsed.
#![forbid(unsafe_code)]

mod cluster;
mod event;
mod id;
mod image;
mod name;
mod node;
mod operator;
mod placement;
mod policy;
mod port;
mod resources;
mod service;
mod session;
mod spec;
mod state;
mod task;
mod time;
mod validate;

pub use cluster::{Autolock, Cluster, JoinSecrets, RootRotation, Secret};
pub use event::{ChangeRecord, Event, EventId, Happening, ObjectKind, TaskRecord, TaskStep};
pub use id::{ClusterId, Id, NodeId, OperatorId, ParseIdError, ServiceId, TaskId};
pub use image::Image;
pub use name::{NameError, service_name};
pub use node::{
    Availability, EngineDescription, MAX_CERTIFICATE_LIFE, Node, NodeRole, NodeSpec, NodeState, Platform,
    RemovedNode,
};
pub use operator::{
    Actor, Enrolment, Invitation, OperatorAccount, OperatorRole, ParseRoleError, RemovedOperator,
};
pub use placement::{Constraint, ConstraintError, ConstraintKey, Operator, Placement, SpreadBy};
pub use policy::{FailureAction, RestartCondition, RestartPolicy, UpdateOrder, UpdatePolicy};
pub use port::{HostPort, PortMode, PortSpec, Protocol};
pub use resources::{Limits, Resources};
pub use service::{Service, ServiceMode, ServiceSpec, UpdateState, UpdateStatus};
pub use session::{
    AgentMessage, Assignment, AssignmentsDelta, LogSubscription, ManagerMessage, MeshDelta, Registration,
    TableVersion, Welcome,
};
pub use spec::{ContainerSpec, ImageRef, Mount, MountKind, PullSource, SpecError, TaskSpec, Ulimit};
pub use state::{DesiredState, StateOwner, TaskState};
pub use task::{Outcome, Task, TaskStatus};
pub use time::Timestamp;
