//! The data path of a node: how packets reach the tasks of a cluster.
//!
//! [`NodeNetwork`] owns everything that one node has in its kernel for the cluster: the tunnel to the other nodes, the
//! routing mesh of published ports, a network namespace and a routed veth per task, host ports and outbound NAT.
//! [`DevNetwork`] makes the nodes' own network namespaces for a cluster on one machine.
//!
//! The kernel is programmed by netlink alone, over sockets that stay open. Once programmed, packets flow without this
//! process: a daemon that is killed, restarted or upgraded disturbs nothing. Which tasks and backends there are is
//! decided elsewhere; nothing here knows managers, images or processes.

#![deny(unsafe_code)]

mod address_plan;
mod config;
mod conntrack;
mod dev;
mod error;
mod examine;
mod mesh;
mod netlink;
mod netns;
mod nft;
mod node;
mod sys;

pub use address_plan::{AddressPlan, PlanError};
pub use config::NodeNetworkConfig;
pub use dev::DevNetwork;
pub use error::{DevError, MeshError, OpenError, TaskError};
pub use examine::{Examined, examine};
pub use mesh::{HostPort, Mesh, Target};
pub use netlink::NetlinkError;
pub use node::{NodeNetwork, PrepareError};
pub use swarm_model::Protocol;
