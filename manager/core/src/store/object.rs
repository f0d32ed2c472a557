//! Objects as bytes: for checkpoints and snapshots.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarm_model::{Cluster, Id, Image, Node, NodeId, OperatorId, RemovedNode, ServiceId, Task, TaskId};

use super::audit::Trail;
use super::service::share_spec;
use super::{ServiceRecord, Store};

/// Key of an object of the store: a table byte, then the object's id or name. Opaque to the shell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(pub Bytes);

/// One object of the store, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    pub key: ObjectKey,
    pub value: Bytes,
}

/// First byte of a key. Never renumbered.
const CLOCK: u8 = 0;
const CLUSTER: u8 = 1;
const NODE: u8 = 2;
const SERVICE: u8 = 3;
const TASK: u8 = 4;
const IMAGE: u8 = 5;
const REMOVED_NODE: u8 = 6;
const OPERATOR: u8 = 7;
const REMOVED_OPERATOR: u8 = 8;
const CHANGES: u8 = 9;
const TASK_EVENTS: u8 = 10;
const REMOVED_SERVICE: u8 = 11;

/// Names one object of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Clock,
    Cluster,
    Node(NodeId),
    Service(ServiceId),
    RemovedService(ServiceId),
    Task(TaskId),
    Image(String),
    RemovedNode(NodeId),
    Operator(OperatorId),
    RemovedOperator(OperatorId),
    /// A page of the audit trail.
    Events(Trail, u64),
}

/// A stored object that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("stored object {0:02x?} belongs to no known table: a newer manager wrote it")]
    Table(Vec<u8>),
    #[error("stored object {key:02x?} cannot be decoded")]
    Value {
        key: Vec<u8>,
        #[source]
        source: rmp_serde::decode::Error,
    },
}

impl Key {
    pub fn encode(&self) -> ObjectKey {
        let with_id = |table: u8, id: Id| [&[table][..], &id.as_u128().to_be_bytes()].concat();
        ObjectKey(Bytes::from(match self {
            Self::Clock => vec![CLOCK],
            Self::Cluster => vec![CLUSTER],
            Self::Node(id) => with_id(NODE, id.0),
            Self::Service(id) => with_id(SERVICE, id.0),
            Self::RemovedService(id) => with_id(REMOVED_SERVICE, id.0),
            Self::Task(id) => with_id(TASK, id.0),
            Self::Image(name) => [&[IMAGE][..], name.as_bytes()].concat(),
            Self::RemovedNode(id) => with_id(REMOVED_NODE, id.0),
            Self::Operator(id) => with_id(OPERATOR, id.0),
            Self::RemovedOperator(id) => with_id(REMOVED_OPERATOR, id.0),
            Self::Events(Trail::Changes, page) => [&[CHANGES][..], &page.to_be_bytes()].concat(),
            Self::Events(Trail::Tasks, page) => [&[TASK_EVENTS][..], &page.to_be_bytes()].concat(),
        }))
    }
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    Bytes::from(rmp_serde::to_vec_named(value).expect("plain data into memory always encodes"))
}

fn decode<T: DeserializeOwned>(object: &StoredObject) -> Result<T, DecodeError> {
    rmp_serde::from_slice(&object.value)
        .map_err(|source| DecodeError::Value { key: object.key.0.to_vec(), source })
}

impl Store {
    /// `None`: there is no such object any more.
    pub(super) fn encode(&self, key: &Key) -> Option<StoredObject> {
        let value = match key {
            Key::Clock => Some(encode(&self.clock)),
            Key::Cluster => self.cluster.as_deref().map(encode),
            Key::Node(id) => self.nodes.get(id).map(|node| encode(&**node)),
            Key::Service(id) => self.services.get(id).map(encode),
            Key::RemovedService(id) => self.removed_services.get(*id).map(|index| encode(&(*id, index))),
            Key::Task(id) => self.tasks.get(id).map(|task| encode(&**task)),
            Key::Image(name) => self.images.get(name).map(|image| encode(&**image)),
            Key::RemovedNode(id) => self.removed.get(*id).map(|record| encode(&(*id, *record))),
            Key::Operator(id) => self.operators.account(*id).map(|account| encode(&**account)),
            Key::RemovedOperator(id) => self.operators.removal(*id).map(|record| encode(&(*id, &**record))),
            Key::Events(trail, number) => {
                self.audit.page(*trail, *number).map(|page| encode(&(*number, page)))
            }
        }?;
        Some(StoredObject { key: key.encode(), value })
    }

    pub(super) fn load(&mut self, object: &StoredObject) -> Result<(), DecodeError> {
        match object.key.0.first() {
            Some(&CLOCK) => self.clock = decode(object)?,
            Some(&CLUSTER) => self.cluster = Some(Arc::new(decode::<Cluster>(object)?)),
            Some(&NODE) => self.put_node(Arc::new(decode::<Node>(object)?)),
            Some(&SERVICE) => {
                let mut record: ServiceRecord = decode(object)?;
                share_spec(Arc::make_mut(&mut record.service));
                if !record.removed {
                    self.indexes.add_service(&record.service);
                }
                self.services.insert(record.service.id, record);
            }
            Some(&REMOVED_SERVICE) => {
                let (id, index) = decode(object)?;
                self.removed_services.insert(id, index);
            }
            Some(&TASK) => self.put_task(Arc::new(decode::<Task>(object)?)),
            Some(&IMAGE) => {
                let image: Image = decode(object)?;
                self.images.insert(image.name.clone(), Arc::new(image));
            }
            Some(&REMOVED_NODE) => {
                let (id, record): (NodeId, RemovedNode) = decode(object)?;
                self.removed.insert(id, record);
            }
            Some(&OPERATOR) => self.operators.put(decode(object)?),
            Some(&REMOVED_OPERATOR) => {
                let (id, record) = decode(object)?;
                self.operators.put_removed(id, record);
            }
            Some(table @ &(CHANGES | TASK_EVENTS)) => {
                let (number, page) = decode(object)?;
                let trail = if *table == CHANGES { Trail::Changes } else { Trail::Tasks };
                self.audit.load(trail, number, page);
            }
            Some(_) | None => return Err(DecodeError::Table(object.key.0.to_vec())),
        }
        Ok(())
    }
}
