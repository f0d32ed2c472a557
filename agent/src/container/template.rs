//! Placeholders in host names, environment and mounts: `{{.Task.Slot}}` and its like, with Docker's names.

use swarm_model::{Assignment, EngineDescription, NodeId};

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
const KNOWN: &str = ".Service.ID .Service.Name .Service.Labels.KEY .Node.ID .Node.Hostname .Node.Platform.OS \
                     .Node.Platform.Architecture .Task.ID .Task.Name .Task.Slot";

/// What placeholders stand for, for one task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placeholders<'a> {
    pub assignment: &'a Assignment,
    pub node: NodeId,
    pub engine: &'a EngineDescription,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("{text:?} has a {OPEN} without {CLOSE}")]
    Unclosed { text: String },
    #[error("{OPEN}{name}{CLOSE} is not known; there are {KNOWN}")]
    Unknown { name: String },
}

impl Placeholders<'_> {
    /// Replaces every placeholder of a text.
    pub fn fill(&self, text: &str) -> Result<String, TemplateError> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (name, after) =
                after.split_once(CLOSE).ok_or_else(|| TemplateError::Unclosed { text: text.to_owned() })?;
            filled.push_str(before);
            filled.push_str(&self.value(name.trim())?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, name: &str) -> Result<String, TemplateError> {
        let Assignment { task, service, service_name, slot, service_labels, .. } = self.assignment;
        Ok(match name {
            ".Service.ID" => service.to_string(),
            ".Service.Name" => service_name.clone(),
            ".Node.ID" => self.node.to_string(),
            ".Node.Hostname" => self.engine.hostname.clone(),
            ".Node.Platform.OS" => self.engine.platform.os.clone(),
            ".Node.Platform.Architecture" => self.engine.platform.arch.clone(),
            ".Task.ID" => task.to_string(),
            ".Task.Name" => format!("{service_name}.{slot}.{task}"),
            ".Task.Slot" => slot.to_string(),
            _ => match name.strip_prefix(".Service.Labels.") {
                // A label that is absent is the empty text, as in Docker.
                Some(key) => service_labels.get(key).cloned().unwrap_or_default(),
                None => return Err(TemplateError::Unknown { name: name.to_owned() }),
            },
        })
    }
}
