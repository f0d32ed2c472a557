//! Which slot of a published port's table leads to which backend.
//!
//! The kernel picks a random slot per new connection, so the slots of a port are always 0 to count - 1. A change of the
//! backends touches as few slots as it can: a backend that stays keeps its slot unless it has to fill a gap.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

/// The new slot table for `wanted`, starting from `current`. New backends come in the order of `wanted`; those named
/// twice count once.
pub fn assign(current: &[SocketAddrV4], wanted: &[SocketAddrV4]) -> Vec<SocketAddrV4> {
    let mut missing: BTreeSet<SocketAddrV4> = wanted.iter().copied().collect();
    let count = missing.len();
    let mut slots: Vec<Option<SocketAddrV4>> = current.iter().map(|backend| missing.take(backend)).collect();
    // Backends beyond the new end fill gaps below it, as new ones do.
    let surplus = slots.split_off(count.min(slots.len()));
    slots.resize(count, None);
    let new = wanted.iter().filter_map(|backend| missing.take(backend));
    let mut spare = surplus.into_iter().flatten().chain(new);
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = spare.next();
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn backends(text: &str) -> Vec<SocketAddrV4> {
        text.bytes().map(|letter| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, letter), 80)).collect()
    }

    fn check(current: &str, wanted: &str, expected: &str) {
        assert_eq!(assign(&backends(current), &backends(wanted)), backends(expected));
    }

    #[test]
    fn order_of_what_is_wanted_does_not_matter() {
        check("abc", "cba", "abc");
    }

    #[test]
    fn a_replaced_backend_gives_its_slot_to_the_new_one() {
        check("abc", "adc", "adc");
    }

    #[test]
    fn growth_appends() {
        check("", "ab", "ab");
        check("", "ba", "ba");
        check("ab", "dabc", "abdc");
    }

    #[test]
    fn the_last_fills_a_gap() {
        check("abcd", "acd", "adc");
        check("abcd", "d", "d");
        check("abc", "", "");
    }

    #[test]
    fn a_backend_named_twice_counts_once() {
        check("", "aab", "ab");
        check("aab", "ab", "ab");
    }
}
