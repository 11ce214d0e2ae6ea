//! When a key is destroyed (rule K11).

use crate::catalogue::keys::{Deletion, KeyRow};
use crate::timekeeper::{DAY, Times};
use crate::{clock, limits};

/// When a key is destroyed, as the clocks have it now: the promised days must have been seen to pass, whatever the wall
/// clock says. So its day moves with a wall clock that jumps, and by the time that nobody saw pass.
pub(crate) fn planned(times: &Times, key: &KeyRow) -> Option<Deletion> {
    let day = clock::parse(key.deletion.as_deref()?).unwrap_or_default();
    let seen = key.deletion_seen.unwrap_or_else(|| {
        // How many days were promised is not known: at least one, so that it can still be cancelled.
        let most = i64::from(limits::DELETION_DAYS_EVER) * DAY;
        times.seen + (day - times.wall()).clamp(DAY, most)
    });
    let day = clock::at(times.day_of(day, seen));
    Some(Deletion { day, seen })
}

/// Whether the deletion day of a key has come.
pub(crate) fn is_due(times: &Times, key: &KeyRow) -> bool {
    let planned = planned(times, key);
    planned.is_some_and(|deletion| deletion.seen <= times.seen && deletion.day <= clock::at(times.wall()))
}

/// Days that must still be seen to pass before the key is destroyed.
pub(crate) fn days_left(times: &Times, key: &KeyRow) -> Option<u64> {
    let left = planned(times, key)?.seen - times.seen;
    Some(left.max(0).unsigned_abs().div_ceil(DAY.unsigned_abs()))
}
