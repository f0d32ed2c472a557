//! What befalls nodes: daemons that die, hang or start again, hosts without power or network, full disks.

use rustix::process::Signal;

use super::Cluster;
use crate::e2e::disk::SmallDisk;
use crate::e2e::eventually;
use crate::e2e::process::{kill, signal};

impl Cluster {
    /// SIGKILL to a node's `swarmd`, and to nothing else.
    pub fn kill(&mut self, number: u16) {
        if let Some(mut child) = self.node(number).child.take() {
            child.kill().expect("killed");
            child.wait().expect("waited for");
        }
    }

    /// SIGTERM to a node's `swarmd`, and its end.
    pub fn terminate(&mut self, number: u16) {
        if let Some(mut child) = self.node(number).child.take() {
            signal(&child, Signal::TERM);
            child.wait().expect("waited for");
        }
    }

    /// The host loses power: network, daemon, shims and containers go at once.
    pub fn crash_host(&mut self, number: u16) {
        self.network().link_down(number).expect("a link to pull");
        self.kill(number);
        for pid in self.processes(number) {
            kill(pid);
        }
        eventually("the host's processes are gone", || match self.processes(number) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
    }

    /// SIGTERM to a node's `swarmd`, and its start.
    pub fn restart_daemon(&mut self, number: u16) {
        self.terminate(number);
        self.restart(number);
    }

    /// What a service manager does with a daemon that has ended by itself.
    pub fn restart_if_stopped(&mut self, number: u16) {
        let child = self.node(number).child.as_mut();
        if child.is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
            self.restart(number);
        }
    }

    /// Pulls the node's cable; its processes go on.
    pub fn cut_off(&self, number: u16) {
        self.network().link_down(number).expect("a link to pull");
    }

    pub fn reconnect(&self, number: u16) {
        self.network().link_up(number).expect("a link");
    }

    /// SIGSTOP to a node's `swarmd`: it hangs, and its connections stay open.
    pub fn pause(&mut self, number: u16) {
        self.signal(number, Signal::STOP);
    }

    pub fn resume(&mut self, number: u16) {
        self.signal(number, Signal::CONT);
    }

    fn signal(&mut self, number: u16, kind: Signal) {
        if let Some(child) = &self.node(number).child {
            signal(child, kind);
        }
    }

    /// Of a node that has one: leaves no byte free.
    pub fn fill_disk(&self, number: u16) {
        self.disk(number).fill().expect("a full disk");
    }

    pub fn free_disk(&self, number: u16) {
        self.disk(number).free().expect("a disk with space");
    }

    fn disk(&self, number: u16) -> &SmallDisk {
        self.nodes[usize::from(number) - 1].disk.as_ref().expect("the options ask for small disks")
    }
}
