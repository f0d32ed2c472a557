//! The causes that libcontainer tells only to its log.
//!
//! What it returns from the container's first process is the outermost error, "failed to prepare
//! rootfs"; which mount it was and what the kernel said, it logs. So errors that are logged in the
//! launching process and in the first process are reported to the shim as details.

use std::fmt::{Debug, Write};
use std::fs::File;
use std::os::fd::OwnedFd;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::Report;

/// Longest detail that is passed on.
const TEXT_LIMIT: usize = 1024;

/// Reports errors that are logged from now on.
pub fn report_logged_errors(report: OwnedFd) {
    // Fails only where there is a subscriber already; then errors just have fewer details.
    let _ = tracing::subscriber::set_global_default(Reporter { report: File::from(report) });
}

struct Reporter {
    report: File,
}

impl Subscriber for Reporter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let mut whole = text.message;
        whole.push_str(&text.fields);
        let end = whole.char_indices().map(|(at, _)| at).find(|at| *at >= TEXT_LIMIT);
        whole.truncate(end.unwrap_or(whole.len()));
        Report::Detail(whole).send(&self.report);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, ", {} {value:?}", field.name())
        };
        written.expect("a string takes all that is written");
    }
}
