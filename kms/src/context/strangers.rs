//! Callers whose user belongs to no account. Each is refused, but only counted: anybody who reaches the socket may call as often as
//! they like, and no record of the audit log is ever removed for room.
//!
//! A user's first refusal is recorded at once, those that follow with their number, once a minute and user.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits;

/// What is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// [`OTHERS`] for the users for whom there is no place.
    pub(crate) uid: u32,
    /// Process of the last call.
    pub(crate) pid: i32,
    /// Calls since the last record.
    pub(crate) calls: u64,
}

/// No user has this number (setresuid(2)).
pub(crate) const OTHERS: u32 = u32::MAX;

/// Refusals that are counted.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<HashMap<u32, Counted>>);

struct Counted {
    pid: i32,
    /// Since the last record.
    calls: u64,
    /// When that was written.
    recorded: Duration,
}

impl Strangers {
    /// Counts a refused call; gives what is to be recorded now. `now` is any clock that nobody sets.
    pub(crate) fn refused(&self, uid: u32, pid: i32, now: Duration) -> Option<Refused> {
        let mut all = self.lock();
        let is_full = all.len() >= limits::STRANGERS && !all.contains_key(&uid);
        let uid = if is_full { OTHERS } else { uid };
        if let Some(counted) = all.get_mut(&uid) {
            counted.calls += 1;
            counted.pid = pid;
            return None;
        }
        let counted = Counted {
            pid,
            calls: 0,
            recorded: now,
        };
        all.insert(uid, counted);
        Some(Refused { uid, pid, calls: 1 })
    }

    /// The refused calls whose record is due; all of them at the daemon's end. They count as recorded: give them
    /// [`Strangers::back`] if they are not.
    pub(crate) fn due(&self, now: Duration, at_end: bool) -> Vec<Refused> {
        let mut due = Vec::new();
        self.lock().retain(|uid, counted| {
            if !at_end && now.saturating_sub(counted.recorded) < limits::STRANGERS_TIME {
                return true;
            }
            if counted.calls == 0 {
                return false;
            }
            due.push(Refused {
                uid: *uid,
                pid: counted.pid,
                calls: std::mem::take(&mut counted.calls),
            });
            counted.recorded = now;
            true
        });
        due
    }

    /// Counts refused calls again that could not be recorded.
    pub(crate) fn back(&self, refused: Refused) {
        if let Some(counted) = self.lock().get_mut(&refused.uid) {
            counted.calls += refused.calls;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refused {
    /// As the audit log has it as the object.
    pub(crate) fn object(self) -> String {
        match (self.uid, self.calls) {
            (OTHERS, calls) => format!("callers of other uids: {calls} calls"),
            (_, 1) => "caller".to_owned(),
            (_, calls) => format!("caller: {calls} calls"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = limits::STRANGERS_TIME;

    #[test]
    fn a_stranger_is_recorded_at_once_and_then_counted_for_a_minute() {
        let strangers = Strangers::default();
        let at = Duration::from_secs(1000);
        let first = strangers.refused(7, 70, at).unwrap();
        assert_eq!((first.calls, first.object().as_str()), (1, "caller"));
        for pid in 71..=99 {
            assert_eq!(strangers.refused(7, pid, at), None);
        }
        assert_eq!(strangers.due(at + MINUTE / 2, false), []);
        let due = strangers.due(at + MINUTE, false);
        let counted = Refused {
            uid: 7,
            pid: 99,
            calls: 29,
        };
        assert_eq!(due, [counted]);
        assert_eq!(due[0].object(), "caller: 29 calls");
        strangers.back(counted);
        assert_eq!(strangers.due(at + MINUTE * 3 / 2, false), []);
        assert_eq!(
            strangers.due(at + MINUTE * 2, false),
            [counted],
            "which was not written"
        );
        // A user who has not called for a minute is forgotten.
        assert_eq!(strangers.due(at + MINUTE * 3, false), []);
        assert!(strangers.refused(7, 70, at + MINUTE * 3).is_some());
    }

    #[test]
    fn at_the_end_nothing_is_left() {
        let strangers = Strangers::default();
        strangers.refused(7, 70, MINUTE);
        strangers.refused(7, 70, MINUTE);
        assert_eq!(strangers.due(MINUTE, true)[0].calls, 1);
        assert_eq!(strangers.due(MINUTE, true), []);
    }

    #[test]
    fn however_many_users_call_so_many_are_told_apart() {
        let strangers = Strangers::default();
        let now = MINUTE;
        let users = u32::try_from(limits::STRANGERS).unwrap();
        for uid in 0..3 * users {
            strangers.refused(uid, 1, now);
        }
        let others = strangers.due(now, true);
        assert_eq!((others.len(), others[0].uid), (1, OTHERS), "{others:?}");
        assert_eq!(
            others[0].calls,
            u64::from(2 * users) - 1,
            "the first was recorded"
        );
        assert!(others[0].object().contains("other uids"));
    }
}
