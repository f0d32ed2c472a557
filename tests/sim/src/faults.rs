//! What goes wrong, when, and how it ends.

use std::time::Duration;

use super::world::{Cure, Happening, World};

impl World {
    /// From here on faults happen and the operator acts.
    pub fn begin_chaos(&mut self) {
        self.is_chaos = true;
        self.network.loss = self.plan.loss;
        self.network.duplication = self.plan.duplication;
        self.network.spikes = self.plan.spikes;
        for host in &mut self.hosts {
            host.runtime.network_failures = self.plan.network_failures;
        }
        self.tell("faults begin");
        self.schedule(Duration::ZERO, Happening::Operate);
        self.schedule(Duration::from_secs(1), Happening::Fault);
        self.schedule(Duration::ZERO, Happening::Members);
    }

    pub fn fault(&mut self) {
        if !self.is_chaos {
            return;
        }
        if self.damage_dice.per_mille(self.plan.damage) {
            self.damage_some_disk();
        }
        match self.fault_dice.below(24) {
            0..=2 => self.crash_some_manager(),
            3 => self.crash_leader(),
            4 => self.pause_manager(),
            5..=6 => self.kill_some_agent(),
            7 => self.pause_agent(),
            8 => self.lose_host(),
            9 => self.reboot_host(),
            10..=11 => self.cut_host(),
            12 => self.cut_one_way(),
            13 => self.split(),
            14 => self.fill_disk(),
            15 => self.restart_all_managers(),
            16..=18 => self.kill_container(),
            19 => self.step_down(),
            _ => self.break_some_stream(),
        }
        let pause = self.plan.fault_pause.as_micros() as u64;
        let after = self.fault_dice.micros(pause / 4..2 * pause);
        self.schedule(after, Happening::Fault);
    }

    pub fn cure(&mut self, cure: Cure) {
        match cure {
            Cure::Link { from, to } => self.network.unblock(from, to),
            Cure::Network => self.network.unblock_all(),
            Cure::DiskSpace { manager } => self.managers[manager].disk.full = false,
        }
        self.resume_streams();
    }

    /// All faults end, for good.
    pub fn heal(&mut self) {
        self.tell("faults end");
        self.is_chaos = false;
        self.network.loss = 0;
        self.network.duplication = 0;
        self.network.spikes = 0;
        self.network.unblock_all();
        for host in 0..self.hosts.len() {
            self.hosts[host].runtime.network_failures = 0;
            self.managers[host].disk.full = false;
            self.managers[host].paused_until = self.now;
            self.hosts[host].paused_until = self.now;
            if !self.hosts[host].is_removed && !self.hosts[host].is_on {
                self.power_on(host);
            }
            self.schedule(Duration::from_millis(1), Happening::StartManager { manager: host });
            self.schedule(Duration::from_millis(1), Happening::StartAgent { host });
        }
        self.resume_streams();
    }

    fn crash_some_manager(&mut self) {
        let manager = self.some_manager();
        self.crash_and_restart(manager);
    }

    fn crash_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.crash_and_restart(leader);
        }
    }

    fn crash_and_restart(&mut self, manager: usize) {
        self.crash_manager(manager);
        let after = self.fault_dice.millis(5..3_000);
        self.schedule(after, Happening::StartManager { manager });
    }

    fn restart_all_managers(&mut self) {
        for manager in 0..self.managers.len() {
            self.crash_and_restart(manager);
        }
    }

    fn pause_manager(&mut self) {
        let manager = self.some_manager();
        let pause = self.fault_dice.millis(100..4_000);
        self.tell(&format!("manager {manager} hangs for {pause:?}"));
        self.managers[manager].paused_until = self.now + pause;
    }

    fn step_down(&mut self) {
        if let Some(leader) = self.leader() {
            self.tell(&format!("manager {leader} is asked to hand over"));
            let life = self.managers[leader].life;
            self.tell_manager(leader, life, swarm_manager_core::door::Event::StepDown);
        }
    }

    fn some_manager(&mut self) -> usize {
        let members: Vec<usize> =
            (0..self.managers.len()).filter(|manager| self.managers[*manager].is_member).collect();
        self.fault_dice.pick(&members).copied().unwrap_or_default()
    }

    fn some_host(&mut self) -> usize {
        let hosts = self.hosts.len();
        self.fault_dice.below(hosts)
    }

    fn kill_some_agent(&mut self) {
        let host = self.some_host();
        self.kill_agent(host);
        let after = self.fault_dice.millis(5..2_000);
        self.schedule(after, Happening::StartAgent { host });
    }

    fn pause_agent(&mut self) {
        let host = self.some_host();
        let pause = self.fault_dice.millis(100..5_000);
        self.tell(&format!("agent {host} hangs for {pause:?}"));
        self.hosts[host].paused_until = self.now + pause;
    }

    /// It stays away until the end, or until somebody switches it on.
    fn lose_host(&mut self) {
        let host = self.some_host();
        if self.hosts[host].is_removed {
            return;
        }
        if self.hosts[host].is_on {
            self.power_off(host);
        } else {
            self.power_on(host);
        }
    }

    fn reboot_host(&mut self) {
        let host = self.some_host();
        if self.hosts[host].is_on && !self.hosts[host].is_removed {
            self.power_off(host);
            self.power_on(host);
        }
    }

    fn cut_host(&mut self) {
        let host = self.some_host();
        self.tell(&format!("host {host} is cut off"));
        for other in 0..self.hosts.len() {
            self.block_for_a_while(host, other);
            self.block_for_a_while(other, host);
        }
    }

    fn cut_one_way(&mut self) {
        let (from, to) = (self.some_host(), self.some_host());
        self.tell(&format!("nothing gets from host {from} to host {to}"));
        self.block_for_a_while(from, to);
    }

    fn block_for_a_while(&mut self, from: usize, to: usize) {
        self.network.block(from, to);
        let after = self.fault_dice.millis(50..6_000);
        self.schedule(after, Happening::Heal(Cure::Link { from, to }));
    }

    fn split(&mut self) {
        let sides: Vec<bool> = (0..self.hosts.len()).map(|_| self.fault_dice.coin()).collect();
        self.tell(&format!("the network splits: {sides:?}"));
        for from in 0..sides.len() {
            for to in (0..sides.len()).filter(|to| sides[*to] != sides[from]) {
                self.network.block(from, to);
            }
        }
        let after = self.fault_dice.millis(100..6_000);
        self.schedule(after, Happening::Heal(Cure::Network));
    }

    fn fill_disk(&mut self) {
        let manager = self.some_manager();
        self.tell(&format!("the disk of manager {manager} is full"));
        self.managers[manager].disk.full = true;
        let after = self.fault_dice.millis(100..3_000);
        self.schedule(after, Happening::Heal(Cure::DiskSpace { manager }));
    }

    fn kill_container(&mut self) {
        let host = self.some_host();
        let running: Vec<_> = self.hosts[host].runtime.running().map(|it| it.assignment.task).collect();
        let Some(task) = self.fault_dice.pick(&running).copied() else { return };
        let code = self.fault_dice.number(0..2) as i32;
        let exit = swarm_agent_core::Exit::Code { code, signal: None, oom: false };
        let boot = self.hosts[host].boot;
        self.schedule(Duration::ZERO, Happening::ContainerEnds { host, boot, task, exit });
    }

    fn break_some_stream(&mut self) {
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        if let Some(stream) = self.fault_dice.pick(&streams).copied() {
            self.break_stream(stream);
        }
    }
}
