//! Draws a [`Picture`] on stderr: redrawn in place on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use swarm_proto::v1;

use super::picture::{self, Goal, Picture, REASON_AFTER};

/// Slots that get a line of their own; more are only counted.
const MAX_SLOT_LINES: usize = 20;

pub struct Drawing {
    mode: Mode,
    /// Lines on the screen that the next frame replaces.
    lines: usize,
    last: String,
    spoke_of: Option<String>,
}

#[derive(PartialEq, Eq)]
enum Mode {
    Quiet,
    Plain,
    Terminal,
}

impl Drawing {
    pub fn new(quiet: bool) -> Self {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let mode = match (quiet, terminal) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Terminal,
            (false, false) => Mode::Plain,
        };
        Self { mode, lines: 0, last: String::new(), spoke_of: None }
    }

    pub fn update(&mut self, picture: &Picture, goal: Goal, elapsed: Duration) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Plain => self.plain(picture, goal),
            Mode::Terminal => self.terminal(picture, goal, elapsed),
        }
    }

    fn plain(&mut self, picture: &Picture, goal: Goal) {
        let line = overall(picture, goal);
        if line != self.last {
            eprintln!("{line}");
            self.last = line;
        }
        let reason = reason(picture);
        if reason.is_some() && reason != self.spoke_of {
            eprintln!("{}", reason.as_deref().unwrap_or_default());
            self.spoke_of = reason;
        }
    }

    fn terminal(&mut self, picture: &Picture, goal: Goal, elapsed: Duration) {
        let mut frame = vec![format!("{}   {:.1} s", overall(picture, goal), elapsed.as_secs_f64())];
        let slots = picture.slots();
        if goal != Goal::Removed && slots.len() <= MAX_SLOT_LINES {
            frame.extend((1..).zip(&slots).map(|(number, slot)| slot_line(number, slots.len(), *slot)));
        }
        frame.extend(reason(picture).filter(|_| slots.len() > MAX_SLOT_LINES));
        let mut out = std::io::stderr().lock();
        if self.lines > 0 {
            let _ = write!(out, "\x1b[{}A", self.lines);
        }
        for line in &frame {
            let _ = writeln!(out, "\x1b[2K{line}");
        }
        let _ = write!(out, "\x1b[J");
        let _ = out.flush();
        self.lines = frame.len();
    }

    /// Leaves what is drawn where it is.
    pub fn finish(&mut self) {
        self.lines = 0;
    }

    pub fn summary(&self, picture: &Picture, goal: Goal, elapsed: Duration) {
        if self.mode == Mode::Quiet {
            return;
        }
        let name = picture.service.spec.as_ref().map(|spec| spec.name.as_str()).unwrap_or_default();
        let seconds = elapsed.as_secs_f64();
        match goal {
            Goal::Removed => eprintln!("{name}  removed   {seconds:.1} s"),
            Goal::Running | Goal::Updated => {
                let nodes = picture.nodes();
                let nodes = if nodes.len() > 5 { format!("{} nodes", nodes.len()) } else { nodes.join(" ") };
                let replicas = picture.replicas();
                let ports = picture
                    .service
                    .ports
                    .iter()
                    .map(|port| format!(":{}", port.published))
                    .collect::<Vec<_>>();
                let ports = if ports.is_empty() {
                    String::new()
                } else {
                    format!("   {} on any node", ports.join(" "))
                };
                eprintln!("{name}  {}/{replicas} running   {nodes}   {seconds:.1} s{ports}", picture.done());
            }
        }
    }
}

fn overall(picture: &Picture, goal: Goal) -> String {
    let leaving = match picture.leaving() {
        0 => String::new(),
        count => format!(", {count} stopping"),
    };
    match goal {
        Goal::Removed => format!("removing{leaving}"),
        Goal::Running | Goal::Updated => {
            let verify = picture.service.update.as_ref().filter(|update| {
                goal == Goal::Updated
                    && update.state() == v1::update_status::State::Updating
                    && picture.done() == picture.replicas() as usize
            });
            let verify = if verify.is_some() { ", verify: watching the new tasks" } else { "" };
            format!(
                "overall progress: {} out of {} tasks{leaving}{verify}",
                picture.done(),
                picture.replicas()
            )
        }
    }
}

fn slot_line(number: usize, slots: usize, slot: Option<&v1::Task>) -> String {
    let Some(task) = slot else { return format!("{number}/{slots}: new") };
    let on =
        if task.node_hostname.is_empty() { String::new() } else { format!(" on {}", task.node_hostname) };
    let reason = picture::reason(task);
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{number}/{slots}: {:<10}{on}{reason}", picture::name(picture::state(task)))
}

fn reason(picture: &Picture) -> Option<String> {
    picture.standstill().filter(|_| picture.since_change(Instant::now()) >= REASON_AFTER)
}
