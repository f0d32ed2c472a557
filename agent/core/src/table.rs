//! Which message of a versioned table applies.

use swarm_model::TableVersion;

/// What to do with a message that leads a table to another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is everything: replace.
    Replace,
    /// It starts from what is held: apply the difference.
    Advance,
    /// It starts from something else: ask for everything.
    Gap,
    /// A leader that has been deposed sent it.
    Deposed,
    /// It leads back, or everything has been asked for already.
    Stale,
}

/// What is held of one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// `None`: nothing since the process started.
    version: Option<TableVersion>,
    /// Everything was asked for and has not come.
    asked: bool,
}

impl Table {
    /// Judges a message from `base` (`None`: everything) to `version`, where `epoch` is the highest one heard of, and
    /// notes the outcome.
    pub fn judge(&mut self, epoch: u64, base: Option<TableVersion>, version: TableVersion) -> Verdict {
        let verdict = self.verdict(epoch, base, version);
        match verdict {
            Verdict::Replace | Verdict::Advance => *self = Self { version: Some(version), asked: false },
            Verdict::Gap => self.asked = true,
            Verdict::Deposed | Verdict::Stale => {}
        }
        verdict
    }

    fn verdict(&self, epoch: u64, base: Option<TableVersion>, version: TableVersion) -> Verdict {
        if version.epoch < epoch {
            return Verdict::Deposed;
        }
        match (base, self.version) {
            (None, Some(own)) if version < own => Verdict::Stale,
            (None, _) => Verdict::Replace,
            (Some(_), _) if self.asked => Verdict::Stale,
            (Some(base), Some(own)) if base == own && version >= own => Verdict::Advance,
            (Some(_), _) => Verdict::Gap,
        }
    }

    pub fn version(&self) -> Option<TableVersion> {
        self.version
    }

    /// A new session begins: what was asked for will not come on it.
    pub fn session_changed(&mut self) {
        self.asked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(epoch: u64, number: u64) -> TableVersion {
        TableVersion { epoch, number }
    }

    #[test]
    fn only_what_starts_from_the_own_version_applies() {
        let mut table = Table::default();
        assert_eq!(table.judge(0, Some(version(1, 1)), version(1, 2)), Verdict::Gap);
        assert_eq!(table.judge(0, Some(version(1, 2)), version(1, 3)), Verdict::Stale, "asked already");
        assert_eq!(table.judge(0, None, version(1, 3)), Verdict::Replace);
        assert_eq!(table.judge(1, Some(version(1, 3)), version(1, 5)), Verdict::Advance);
        assert_eq!(table.judge(1, Some(version(1, 3)), version(1, 6)), Verdict::Gap);
        assert_eq!(table.judge(1, None, version(1, 4)), Verdict::Stale);
        assert_eq!(table.version(), Some(version(1, 5)));
    }

    #[test]
    fn a_deposed_leader_is_not_obeyed() {
        let mut table = Table::default();
        assert_eq!(table.judge(3, None, version(2, 9)), Verdict::Deposed);
        assert_eq!(table.judge(3, None, version(3, 1)), Verdict::Replace);
        assert_eq!(table.judge(4, Some(version(3, 1)), version(3, 2)), Verdict::Deposed);
        assert_eq!(table.version(), Some(version(3, 1)));
    }
}
