//! Task networks made ahead: a namespace with its veth pair takes milliseconds, its address microseconds.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::{fs, io};

use ipnet::Ipv4Net;
use parking_lot::{Condvar, Mutex};
use thiserror::Error;

use super::ruleset::READY_GROUP;
use crate::netlink::link::{self, LOOPBACK_INDEX, Mac, Setting, VethEnd};
use crate::netlink::route::{self, MAIN_TABLE, Route, RouteTarget, STATIC};
use crate::netlink::{Batch, NetlinkError, Socket, Subsystem};
use crate::netns;

/// A pair is a link of its own, so every pair has the same two addresses.
const NODE_END_MAC: Mac = [0x02, 0xfe, 0, 0, 0, 1];
pub const TASK_END_MAC: Mac = [0x02, 0xfe, 0, 0, 0, 2];
/// The kernel fills in the first free number.
const NODE_END: &str = "swt%d";
/// Name of the task's end.
pub const TASK_END: &str = "gw";
/// The task's next hop; link-local, so it collides with nothing.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// What containers expect of their namespace: ports below 1024 and ping without privileges, as Docker has it.
const NAMESPACE_SETTINGS: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
];

/// A namespace that lacks only its address.
#[derive(Debug)]
pub struct Prepared {
    pub netns: OwnedFd,
    /// Opened inside.
    socket: Socket,
    /// The task's end of the pair, in the namespace.
    task_device: u32,
    /// The node's end of the pair.
    pub device: u32,
}

#[derive(Debug, Error)]
pub enum PrepareError {
    #[error("cannot make a network namespace")]
    Namespace(#[source] io::Error),
    #[error("cannot set {path}")]
    Setting { path: &'static str, source: io::Error },
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("the veth pair of a new namespace has vanished")]
    Vanished,
}

impl Prepared {
    /// Gives the namespace its address and lets go of everything else in it.
    pub fn assign(mut self, address: Ipv4Addr) -> Result<(OwnedFd, u32), NetlinkError> {
        let mut batch = Batch::new();
        route::add_address(&mut batch, self.task_device, Ipv4Net::from(address));
        self.socket.execute(batch)?;
        Ok((self.netns, self.device))
    }
}

/// Makes namespaces in a thread of its own and keeps some ready.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    ready: VecDeque<Prepared>,
    keep: usize,
    /// Callers that wait for a namespace.
    waiting: usize,
    /// Why the last attempt failed; the next caller gets it.
    error: Option<PrepareError>,
    closed: bool,
}

impl State {
    fn has_work(&self) -> bool {
        self.ready.len() < self.keep + self.waiting && (self.error.is_none() || self.waiting > 0)
    }
}

impl Pool {
    /// Starts keeping `keep` namespaces ready, connected to the calling thread's namespace.
    pub fn start(keep: usize, mtu: u16) -> Result<Self, PrepareError> {
        let home = netns::current().map_err(PrepareError::Namespace)?;
        let socket = Socket::open(Subsystem::Route)?;
        let state =
            State { ready: VecDeque::with_capacity(keep), keep, waiting: 0, error: None, closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let maker = Maker { home, socket, mtu };
        let thread = std::thread::Builder::new()
            .name("netns-pool".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || maker.run(&shared)
            })
            .map_err(PrepareError::Namespace)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes a namespace; waits for one if none is ready.
    pub fn take(&self) -> Result<Prepared, PrepareError> {
        let mut state = self.shared.state.lock();
        if state.ready.is_empty() {
            state.waiting += 1;
            state.error = None;
            self.shared.changed.notify_all();
            self.shared
                .changed
                .wait_while(&mut state, |state| state.ready.is_empty() && state.error.is_none());
            state.waiting -= 1;
        }
        let taken = state.ready.pop_front();
        self.shared.changed.notify_all();
        match (taken, state.error.take()) {
            (Some(prepared), _) => Ok(prepared),
            (None, Some(error)) => Err(error),
            (None, None) => unreachable!("the wait ends with a namespace or an error"),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by its own hook.
            let _ = thread.join();
        }
    }
}

struct Maker {
    home: OwnedFd,
    /// Opened in the node's namespace.
    socket: Socket,
    mtu: u16,
}

impl Maker {
    fn run(mut self, shared: &Shared) {
        loop {
            let mut state = shared.state.lock();
            shared.changed.wait_while(&mut state, |state| !state.closed && !state.has_work());
            if state.closed {
                return;
            }
            drop(state);
            let made = self.make();
            let mut state = shared.state.lock();
            match made {
                Ok(prepared) => state.ready.push_back(prepared),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot prepare a task network");
                    state.error = Some(error);
                }
            }
            shared.changed.notify_all();
        }
    }

    fn make(&mut self) -> Result<Prepared, PrepareError> {
        let made = self.make_away();
        // The thread must not stay: it would keep the namespace alive after its task is gone.
        netns::enter(&self.home).map_err(PrepareError::Namespace)?;
        made
    }

    fn make_away(&mut self) -> Result<Prepared, PrepareError> {
        netns::enter_new().map_err(PrepareError::Namespace)?;
        let netns = netns::current().map_err(PrepareError::Namespace)?;
        for (path, value) in NAMESPACE_SETTINGS {
            fs::write(path, value).map_err(|source| PrepareError::Setting { path, source })?;
        }
        let mut batch = Batch::new();
        let here = VethEnd { name: NODE_END, mac: Some(NODE_END_MAC), mtu: Some(self.mtu) };
        let there = VethEnd { name: TASK_END, mac: Some(TASK_END_MAC), mtu: Some(self.mtu) };
        link::add_veth(&mut batch, here, there, netns.as_fd(), READY_GROUP, None);
        self.socket.execute(batch)?;
        let mut socket = Socket::open(Subsystem::Route)?;
        let (task_device, device) = ends(&mut socket)?.ok_or(PrepareError::Vanished)?;
        self.set_up_node_end(device)?;
        set_up_inside(&mut socket, task_device)?;
        Ok(Prepared { netns, socket, task_device, device })
    }

    fn set_up_node_end(&mut self, device: u32) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        link::without_ipv6(&mut batch, device);
        // Strict path filtering: a task can send from no address but its own.
        let settings = [(Setting::Forwarding, 1), (Setting::RpFilter, 1), (Setting::RouteLocalnet, 1)];
        link::configure(&mut batch, device, &settings);
        link::set_up(&mut batch, device, true);
        self.socket.execute(batch)
    }
}

/// Device numbers of the task's end, in the socket's namespace, and of the node's end, in the node's.
pub fn ends(socket: &mut Socket) -> Result<Option<(u32, u32)>, NetlinkError> {
    let task_end = link::find(socket, TASK_END)?;
    Ok(task_end.and_then(|link| Some((link.index, link.peer?))))
}

/// Sets up everything inside a namespace but the address.
fn set_up_inside(socket: &mut Socket, device: u32) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    link::set_up(&mut batch, LOOPBACK_INDEX, true);
    link::without_ipv6(&mut batch, device);
    link::set_up(&mut batch, device, true);
    route::set_neighbour(&mut batch, device, NEXT_HOP, NODE_END_MAC);
    let routes = [
        (Ipv4Net::from(NEXT_HOP), RouteTarget::Device(device)),
        (Ipv4Net::default(), RouteTarget::Gateway(NEXT_HOP, device)),
    ];
    for (destination, target) in routes {
        Route { destination, table: MAIN_TABLE, target, source: None, origin: STATIC }.replace(&mut batch);
    }
    socket.execute(batch)
}
