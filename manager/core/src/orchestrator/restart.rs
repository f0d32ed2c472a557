//! Restarts: whether and when a slot whose task ended gets another one.
//!
//! Everything is read from the replicated records of the slot, so a new leader continues a back-off and a count of
//! attempts where the old one was. The jitter is derived from the ended task's id for the same reason.

use std::time::Duration;

use swarm_model::{RestartCondition, RestartPolicy, TaskId, TaskState, Timestamp};

use super::attempt::Attempt;

/// Longest base of a delay; a longer one asked for in the policy stays as it is.
const CEILING: Duration = Duration::from_secs(5 * 60);
/// Delay 0 restarts at once the first time, and doubles from here, so that a crash loop never floods the log.
const FLOOR: Duration = Duration::from_millis(100);
/// A task that ran for this long was healthy: the back-off begins anew.
const HEALTHY: Duration = Duration::from_secs(10 * 60);
/// The jitter adds up to one part in this many.
const JITTER_PART: u32 = 10;

/// What follows on the end of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// `restarts` in a row, this one included. `not_before` may have passed.
    Restart { restarts: u32, not_before: Option<Timestamp> },
    /// Its node refused it. The next one is not even prepared before this time, as that is what failed.
    Retry { at: Timestamp, restarts: u32, not_before: Option<Timestamp> },
    /// The policy's attempts are used up; this many were made.
    Exhausted { restarts: u64 },
    /// The policy wants no other task.
    Ended,
}

/// Decides on the last of `attempts`, which has ended; the others are its slot's history, oldest first. `restarts` is
/// how many restarts in a row led to it.
pub(super) fn decide(policy: &RestartPolicy, attempts: &[Attempt<'_>], restarts: u32) -> Verdict {
    let Some((last, outcome)) =
        attempts.last().and_then(|last| last.outcome.as_deref().map(|end| (last, end)))
    else {
        return Verdict::Restart { restarts, not_before: None };
    };
    if last.own_end().is_some() {
        return after_own_end(policy, attempts, last, restarts);
    }
    if !is_refused(last) {
        // Lost with its node: replaced at once, but a delay that it was in is kept.
        return Verdict::Restart { restarts, not_before: last.not_before };
    }
    // Nothing that the container did, so no attempt is counted. The delay is there for the node's and the registry's
    // sake; it doubles over as many refusals as the history still holds.
    let refusals = attempts.iter().rev().take_while(|attempt| is_refused(attempt)).count();
    let doublings = u32::try_from(refusals - 1).unwrap_or(u32::MAX);
    let at = outcome.at + delay(policy.delay, doublings, last.id);
    Verdict::Retry { at, restarts, not_before: last.not_before }
}

fn after_own_end(
    policy: &RestartPolicy,
    attempts: &[Attempt<'_>],
    last: &Attempt<'_>,
    restarts: u32,
) -> Verdict {
    let Some(outcome) = last.own_end() else { return Verdict::Ended };
    let wanted = match policy.condition {
        RestartCondition::Any => true,
        RestartCondition::OnFailure => outcome.state != TaskState::Complete,
        RestartCondition::None => false,
    };
    if !wanted {
        return Verdict::Ended;
    }
    let healthy = outcome.ran_since.is_some_and(|since| outcome.at.since(since) >= HEALTHY);
    let made = restarts_made(policy, attempts, restarts);
    if policy.max_attempts > 0 && made >= policy.max_attempts {
        return Verdict::Exhausted { restarts: made };
    }
    let before = if healthy { 0 } else { restarts };
    let not_before = outcome.at + delay(policy.delay, before, last.id);
    Verdict::Restart { restarts: before.saturating_add(1), not_before: Some(not_before) }
}

/// Restarts that count against the policy's attempts. The window is measured in time that the slot's tasks had, without
/// the delays between them: else a window shorter than the delay would never see a second restart.
fn restarts_made(policy: &RestartPolicy, attempts: &[Attempt<'_>], restarts: u32) -> u64 {
    let Some(revision) = attempts.last().map(|last| last.revision) else { return 0 };
    let ends = attempts.iter().rev().filter(|attempt| attempt.revision == revision);
    let ends = ends.filter_map(|attempt| Some((attempt, attempt.own_end()?)));
    if policy.window.is_zero() {
        // The history is cut, the number of restarts in a row is not.
        return (ends.count() as u64).saturating_sub(1).max(u64::from(restarts));
    }
    let mut active = Duration::ZERO;
    let within = ends.take_while(|(attempt, outcome)| {
        active += outcome.at.since(attempt.started_at());
        active <= policy.window
    });
    (within.count() as u64).saturating_sub(1)
}

/// Its node refused or stopped it although it was wanted.
fn is_refused(attempt: &Attempt<'_>) -> bool {
    attempt.outcome.is_some()
        && attempt.own_end().is_none()
        && !attempt.is_orphaned()
        && !attempt.is_superseded()
}

/// The longest delay that the policy can lead to.
pub(super) fn longest_delay(policy: &RestartPolicy) -> Duration {
    let longest = CEILING.max(policy.delay);
    longest + longest / JITTER_PART
}

fn delay(base: Duration, doublings: u32, task: TaskId) -> Duration {
    let doubled = if doublings == 0 {
        base
    } else {
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        base.max(FLOOR).saturating_mul(factor).min(CEILING.max(base))
    };
    doubled + doubled / JITTER_PART * (scatter(task) % 1000) / 1000
}

/// A number that looks random and is the same on every manager: the finaliser of SplitMix64 (Steele, Lea and Flood,
/// 2014), upper half.
fn scatter(task: TaskId) -> u32 {
    let id = task.as_u128();
    let mut mixed = (id ^ (id >> 64)) as u64;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_ceiling_and_scatter_by_a_tenth() {
        let id = |number: u128| TaskId::from_u128((number << 64) | 77);
        let base = Duration::from_secs(5);
        for (doublings, expect) in [(0, 5), (1, 10), (2, 20), (5, 160), (6, 300), (31, 300), (500, 300)] {
            let expect = Duration::from_secs(expect);
            let delays: Vec<_> = (0..100).map(|task| delay(base, doublings, id(task))).collect();
            assert!(delays.iter().all(|delay| *delay >= expect && *delay <= expect + expect / 10));
            assert!(delays.iter().any(|delay| *delay != delays[0]), "they scatter");
        }
        assert_eq!(delay(Duration::ZERO, 0, id(1)), Duration::ZERO);
        assert!(delay(Duration::ZERO, 3, id(1)) >= FLOOR * 8);
        let long = Duration::from_secs(3600);
        assert!(delay(long, 4, id(1)) >= long && delay(long, 4, id(1)) <= longest_delay_of(long));
    }

    fn longest_delay_of(delay: Duration) -> Duration {
        longest_delay(&RestartPolicy { delay, ..RestartPolicy::default() })
    }
}
