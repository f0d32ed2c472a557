//! The capabilities of a container.

use std::collections::BTreeSet;
use std::str::FromStr;

use caps::{CapSet, Capability};

use crate::spec::InvalidSpec;

/// What Docker gives. `CAP_MKNOD` is harmless beside the device filter, `CAP_NET_RAW` in a network
/// namespace; without them old entry points and `ping` fail.
const DEFAULT: [Capability; 14] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];

/// Names of the capabilities, `CAP_` included, ordered.
pub type Names = BTreeSet<String>;

/// The default set with `add` and without `drop`. As in Docker, `ALL` in either comes first, so
/// `drop: ALL, add: CHOWN` gives just that one.
pub fn resolve(add: &[String], drop: &[String]) -> Result<Names, InvalidSpec> {
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut result: Names = match (all(add), all(drop)) {
        (true, _) => known_to_this_host(),
        (false, true) => Names::new(),
        (false, false) => DEFAULT.iter().map(ToString::to_string).collect(),
    };
    let single = |name: &&String| !name.eq_ignore_ascii_case("ALL");
    for name in drop.iter().filter(single) {
        result.remove(&parse(name, "cap_drop")?);
    }
    for name in add.iter().filter(single) {
        result.insert(parse(name, "cap_add")?);
    }
    Ok(result)
}

fn parse(name: &str, field: &'static str) -> Result<String, InvalidSpec> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    match Capability::from_str(&full) {
        Ok(capability) => Ok(capability.to_string()),
        Err(_) => Err(InvalidSpec {
            field,
            reason: format!("{name:?} is not a capability; write for example NET_ADMIN, or ALL"),
        }),
    }
}

/// What this kernel has and this process may hand on.
fn known_to_this_host() -> Names {
    let bounding = caps::read(None, CapSet::Bounding).unwrap_or_default();
    bounding.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], expect: Result<&[&str], &str>) {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        match (resolve(&owned(add), &owned(drop)), expect) {
            (Ok(names), Ok(expect)) => assert_eq!(names.iter().collect::<Vec<_>>(), expect),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expect) => panic!("{found:?}, not {expect:?}"),
        }
    }

    #[test]
    fn all_comes_before_single_names() {
        check(&["chown"], &["ALL"], Ok(&["CAP_CHOWN"]));
        check(&["CAP_NET_ADMIN", "net_admin"], &["all"], Ok(&["CAP_NET_ADMIN"]));
    }

    #[test]
    fn the_default_set_has_nothing_that_rules_the_host() {
        let names = resolve(&[], &[]).unwrap();
        assert_eq!(names.len(), 14);
        assert!(!names.contains("CAP_SYS_ADMIN"));
        assert!(!resolve(&[], &["MKNOD".to_owned()]).unwrap().contains("CAP_MKNOD"));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        check(&["SYS_MAGIC"], &[], Err("cap_add: \"SYS_MAGIC\""));
        check(&[], &[""], Err("cap_drop: \"\""));
    }
}
