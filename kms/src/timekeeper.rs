//! Time that a wall clock cannot change: what was seen to pass, and the month that it is.
//!
//! A wall clock may jump, by a wrong time server, by a battery that is empty, by a slip of the hand. What cannot be undone,
//! or costs money, hangs on two counters instead, which the catalogue keeps over restarts:
//!
//! - **seen time** grows by CLOCK_BOOTTIME from one look to the next, within one boot, by [`limits::LOOK_MOST`] at most. What passes
//!   while no daemon looks does not count, so it is never ahead of what has really passed;
//! - **steady time** is the wall clock's, as long as that goes as CLOCK_BOOTTIME does. When the wall clock is
//!   [`limits::CLOCK_JUMP`] or more away from it, it goes on by CLOCK_BOOTTIME alone, until the wall clock has come back, or
//!   has stayed where it is for [`limits::CLOCK_SETTLE_TIME`] of seen time, and is believed. A clock that is ahead stays so also
//!   over restarts of the machine, and goes forward by the time that the machine was off.
//!
//! A wall clock that jumps between two looks is an alarm: but not forwards over a restart of the machine, which cannot be
//! told from a machine that was off.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sqlx::FromRow;

use crate::error::{Code, Error, Result};
use crate::{clock, limits};

/// An hour, in milliseconds.
pub(crate) const HOUR: i64 = 3600 * 1000;
/// A day, in milliseconds.
pub(crate) const DAY: i64 = 24 * HOUR;

/// What the machine's clocks say, in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Since 1970.
    pub(crate) wall: i64,
    /// CLOCK_BOOTTIME: since the boot, with suspension.
    pub(crate) boottime: i64,
    /// The kernel's random id of the boot.
    pub(crate) boot: String,
}

/// Where readings come from.
pub(crate) trait Clocks: Send + Sync {
    /// What they say now.
    fn read(&self) -> Reading;
}

/// The clocks of this machine.
pub(crate) struct Machine {
    boot: String,
}

impl Machine {
    /// # Errors
    /// [`Code::Internal`] where there is no `/proc`.
    pub(crate) fn new() -> Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| Error::because(Code::Internal, "the id of the boot cannot be read", error))?;
        Ok(Machine {
            boot: boot.trim().to_owned(),
        })
    }
}

impl Clocks for Machine {
    fn read(&self) -> Reading {
        Reading {
            wall: clock::wall(),
            boottime: millis(boottime()),
            boot: self.boot.clone(),
        }
    }
}

/// Time since the boot, with suspension.
pub(crate) fn boottime() -> Duration {
    // The kernel never gives a negative one.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// The counters, as a look has left them. Milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct Times {
    /// What was seen to pass.
    pub(crate) seen: i64,
    /// Since 1970.
    pub(crate) steady: i64,
    /// How far the wall clock is ahead of the steady time.
    pub(crate) away: i64,
    /// Since when the wall clock is so far ahead, by the seen time.
    pub(crate) away_since: i64,
    pub(crate) boot: String,
    pub(crate) boottime: i64,
    /// The last jump of the wall clock, in words.
    pub(crate) jump: Option<String>,
    /// When the last jump was, by the seen time.
    pub(crate) jump_seen: i64,
}

impl Times {
    /// Where nothing is known of the time before: the wall clock is believed.
    fn first(reading: Reading) -> Self {
        Times {
            seen: 0,
            steady: reading.wall,
            away: 0,
            away_since: 0,
            boot: reading.boot,
            boottime: reading.boottime,
            jump: None,
            jump_seen: 0,
        }
    }

    /// At a later reading; true if the wall clock has jumped since.
    fn at(&self, reading: Reading) -> (Self, bool) {
        let same_boot = self.boot == reading.boot && self.boottime <= reading.boottime;
        let passed = if same_boot {
            reading.boottime - self.boottime
        } else {
            0
        };
        let seen = self.seen + passed.min(millis(limits::LOOK_MOST));
        let steady = self.steady + passed;
        let away = reading.wall - steady;
        let change = away - self.away;
        let has_changed = change.abs() > millis(limits::CLOCK_JUMP);
        let jumped = has_changed && (same_boot || change < 0);
        // A machine that is off each night is further ahead at each boot, and would never have stayed for long enough. One whose
        // clock was behind has not stayed ahead at all.
        let stays_away = !same_boot && change > 0 && self.away > 0;
        let away_since = if has_changed && !stays_away {
            seen
        } else {
            self.away_since
        };
        let believed = away.abs() <= millis(limits::CLOCK_JUMP)
            || seen - away_since >= millis(limits::CLOCK_SETTLE_TIME);
        let times = Times {
            seen,
            steady: if believed { reading.wall } else { steady },
            away: if believed { 0 } else { away },
            away_since,
            boot: reading.boot,
            boottime: reading.boottime,
            jump: if jumped {
                Some(in_words(change, reading.wall))
            } else {
                self.jump.clone()
            },
            jump_seen: if jumped { seen } else { self.jump_seen },
        };
        (times, jumped)
    }

    /// The wall clock.
    pub(crate) fn wall(&self) -> i64 {
        self.steady + self.away
    }

    /// The wall clock at the moment at which the seen time will be so far, if a daemon sees all of it pass.
    pub(crate) fn wall_at(&self, seen: i64) -> i64 {
        self.wall() + (seen - self.seen).max(0)
    }

    /// When something comes that waits for the seen time to be so far, by the wall clock as it is now: as was promised, unless that
    /// clock has jumped since, or time has passed that nobody saw.
    pub(crate) fn day_of(&self, promised: i64, seen: i64) -> i64 {
        let due = self.wall_at(seen);
        let is_away = (due - promised).abs() > millis(limits::CLOCK_JUMP);
        if is_away { due } else { promised }
    }

    /// Whether it has come.
    pub(crate) fn has_come(&self, promised: i64, seen: i64) -> bool {
        seen <= self.seen && self.day_of(promised, seen) <= self.wall()
    }

    /// The last jump, if it was a short time ago.
    pub(crate) fn late_jump(&self) -> Option<&str> {
        let is_late = self.seen - self.jump_seen < millis(limits::CLOCK_SETTLE_TIME);
        self.jump.as_deref().filter(|_| is_late)
    }
}

/// `forward by 8 days and 0 hours, to 2026-12-09T…`
fn in_words(change: i64, wall: i64) -> String {
    let way = if change < 0 { "back" } else { "forward" };
    let hours = change.unsigned_abs() / HOUR.unsigned_abs();
    let (days, hours) = (hours / 24, hours % 24);
    format!("{way} by {days} days and {hours} hours, to {}", clock::at(wall))
}

/// In milliseconds.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The daemon's counters.
pub(crate) struct Timekeeper {
    clocks: Box<dyn Clocks>,
    known: Mutex<Known>,
}

struct Known {
    times: Times,
    /// Jumps that are not in the audit log yet.
    unrecorded: Vec<String>,
}

impl Timekeeper {
    /// Goes on from what was noted last.
    pub(crate) fn new(clocks: Box<dyn Clocks>, noted: Option<Times>) -> Self {
        let times = noted.unwrap_or_else(|| Times::first(clocks.read()));
        Timekeeper {
            clocks,
            known: Mutex::new(Known {
                times,
                unrecorded: Vec::new(),
            }),
        }
    }

    /// The counters now.
    pub(crate) fn now(&self) -> Times {
        self.lock().times.at(self.clocks.read()).0
    }

    /// The period of metering and of fees, such as `2026-11`.
    pub(crate) fn month(&self) -> String {
        clock::month(&clock::at(self.now().steady)).to_owned()
    }

    /// Looks: gives the counters, which are to be noted, and the jumps that are to be recorded with them.
    pub(crate) fn look(&self) -> (Times, Vec<String>) {
        let mut known = self.lock();
        let (times, jumped) = known.times.at(self.clocks.read());
        known.times = times;
        if jumped && known.unrecorded.len() < limits::UNRECORDED_JUMPS {
            let jump = known.times.jump.clone();
            known.unrecorded.extend(jump);
        }
        (known.times.clone(), known.unrecorded.clone())
    }

    /// So many of the jumps are recorded.
    pub(crate) fn recorded(&self, jumps: usize) {
        let mut known = self.lock();
        let jumps = jumps.min(known.unrecorded.len());
        known.unrecorded.drain(..jumps);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use std::sync::Arc;

    use super::*;

    /// Clocks that a test sets.
    #[derive(Clone)]
    pub(crate) struct Fake(Arc<Mutex<Reading>>);

    impl Clocks for Fake {
        fn read(&self) -> Reading {
            self.0.lock().unwrap().clone()
        }
    }

    impl Fake {
        /// 2026-11-20T00:00:00Z, a day after the boot.
        pub(crate) fn new() -> Self {
            Fake(Arc::new(Mutex::new(Reading {
                wall: clock::parse("2026-11-20T00:00:00.000Z").unwrap(),
                boottime: DAY,
                boot: "first".into(),
            })))
        }

        /// Time passes, which both clocks say.
        pub(crate) fn pass(&self, time: Duration) {
            let mut reading = self.0.lock().unwrap();
            reading.wall += millis(time);
            reading.boottime += millis(time);
        }

        /// The wall clock alone is set.
        pub(crate) fn jump(&self, by: i64) {
            self.0.lock().unwrap().wall += by;
        }

        /// The machine was off for a time, and boots.
        pub(crate) fn reboot(&self, off: i64) {
            let mut reading = self.0.lock().unwrap();
            reading.boot.push_str(", next");
            reading.boottime = 5000;
            reading.wall += off;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::Fake;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    struct World {
        clocks: Fake,
        keeper: Timekeeper,
    }

    impl World {
        fn new() -> Self {
            let clocks = Fake::new();
            let keeper = Timekeeper::new(Box::new(clocks.clone()), None);
            World { clocks, keeper }
        }

        /// As the daemon does.
        fn pass_looking(&self, minutes: u32) {
            for _ in 0..minutes {
                self.clocks.pass(MINUTE);
                self.keeper.look();
            }
        }

        /// The jumps that a look finds.
        fn jumps(&self) -> Vec<String> {
            let (_, jumps) = self.keeper.look();
            self.keeper.recorded(jumps.len());
            jumps
        }

        /// The daemon is started anew.
        fn restart(&mut self) {
            let noted = self.keeper.look().0;
            self.keeper = Timekeeper::new(Box::new(self.clocks.clone()), Some(noted));
        }

        fn seen(&self) -> i64 {
            self.keeper.now().seen
        }
    }

    #[test]
    fn what_passes_is_seen_and_an_hour_at_most_between_two_looks() {
        let world = World::new();
        world.pass_looking(90);
        assert_eq!(world.seen(), 90 * millis(MINUTE));
        world.clocks.pass(30 * 60 * MINUTE);
        assert_eq!(world.seen(), 150 * millis(MINUTE), "as after a suspension");
        assert_eq!(world.jumps(), [""; 0], "which is no jump");
        assert_eq!(world.seen(), 150 * millis(MINUTE));
    }

    #[test]
    fn a_wall_clock_that_jumps_is_found_and_makes_no_time_pass() {
        let world = World::new();
        world.pass_looking(1);
        let seen = world.seen();
        world.clocks.jump(8 * DAY);
        assert_eq!(world.seen(), seen);
        assert_eq!(
            world.jumps(),
            ["forward by 8 days and 0 hours, to 2026-11-28T00:01:00.000Z"]
        );
        assert_eq!(world.jumps(), [""; 0], "once");
        assert!(world.keeper.now().late_jump().is_some());
        world.clocks.jump(-8 * DAY);
        assert_eq!(
            world.jumps(),
            ["back by 8 days and 0 hours, to 2026-11-20T00:01:00.000Z"]
        );
        assert_eq!(world.seen(), seen);
        world.pass_looking(24 * 60);
        assert_eq!(world.keeper.now().late_jump(), None, "a day later");
    }

    #[test]
    fn what_was_not_recorded_is_told_again() {
        let world = World::new();
        world.clocks.jump(DAY);
        assert_eq!(world.keeper.look().1.len(), 1);
        assert_eq!(world.keeper.look().1.len(), 1, "its record was not written");
        world.keeper.recorded(1);
        assert_eq!(world.keeper.look().1.len(), 0);
        for _ in 0..100 {
            world.clocks.jump(DAY);
            world.keeper.look();
        }
        assert_eq!(world.keeper.look().1.len(), limits::UNRECORDED_JUMPS);
    }

    #[test]
    fn small_steps_and_drift_are_no_jump() {
        let world = World::new();
        for _ in 0..48 {
            world.clocks.jump(50 * millis(MINUTE));
            world.clocks.pass(MINUTE);
            assert_eq!(world.jumps(), [""; 0]);
        }
        assert_eq!(world.seen(), 48 * millis(MINUTE));
        assert_eq!(world.keeper.now().away, 0);
    }

    #[test]
    fn over_a_restart_of_the_daemon_a_jump_is_found_and_of_the_machine_backwards_alone() {
        let mut world = World::new();
        world.pass_looking(1);
        world.restart();
        world.clocks.jump(8 * DAY);
        assert_eq!(world.jumps().len(), 1, "the same boot");
        let seen = world.seen();
        world.restart();
        world.clocks.reboot(30 * DAY);
        assert_eq!(world.jumps(), [""; 0], "it may have been off for so long");
        assert_eq!(world.seen(), seen, "but nobody saw it pass");
        world.restart();
        world.clocks.reboot(-2 * DAY);
        assert_eq!(world.jumps().len(), 1, "time does not go back");
        assert_eq!(world.seen(), seen);
    }

    #[test]
    fn the_month_does_not_jump_and_follows_a_clock_that_stays() {
        let mut world = World::new();
        world.pass_looking(1);
        assert_eq!(world.keeper.month(), "2026-11");
        world.clocks.jump(100 * DAY);
        world.pass_looking(60);
        assert_eq!(world.keeper.month(), "2026-11");
        world.clocks.jump(-100 * DAY);
        world.pass_looking(1);
        assert_eq!(
            (world.keeper.month(), world.keeper.now().away),
            ("2026-11".into(), 0)
        );
        // The machine was off over the month's end: its clock is believed when it has stayed for a day.
        world.restart();
        world.clocks.reboot(20 * DAY);
        world.pass_looking(24 * 60 - 1);
        assert_eq!(world.keeper.month(), "2026-11");
        world.restart();
        world.pass_looking(2);
        assert_eq!(world.keeper.month(), "2026-12");
        // Months go on where nothing jumps, also while nobody looks.
        world.clocks.pass(30 * 24 * 60 * MINUTE);
        assert_eq!(world.keeper.month(), "2027-01");
    }

    #[test]
    fn a_machine_that_is_off_each_night_comes_into_the_next_month_and_jumps_into_none() {
        let mut world = World::new();
        for _ in 0..20 {
            world.pass_looking(8 * 60);
            world.restart();
            world.clocks.reboot(16 * HOUR);
            world.keeper.look();
        }
        assert_eq!(world.jumps(), [""; 0]);
        assert_eq!(world.keeper.month(), "2026-12");
        assert_eq!(world.seen(), 20 * 8 * HOUR, "no day passes that nobody saw");
        // Within a boot, a clock that goes forward must stay for a day.
        world.clocks.jump(100 * DAY);
        world.pass_looking(8 * 60);
        world.restart();
        world.clocks.reboot(16 * HOUR);
        world.keeper.look();
        world.pass_looking(15 * 60);
        assert_eq!(world.keeper.month(), "2026-12");
        world.pass_looking(2 * 60);
        assert_eq!(world.keeper.month(), "2027-03");
        assert_eq!(world.seen(), (20 * 8 + 25) * HOUR);
    }

    #[test]
    fn a_clock_that_was_behind_is_believed_no_sooner_when_it_boots_ahead() {
        let mut world = World::new();
        world.pass_looking(1);
        world.clocks.jump(-2 * DAY);
        world.pass_looking(23 * 60);
        world.restart();
        world.clocks.reboot(10 * 365 * DAY);
        world.keeper.look();
        world.pass_looking(23 * 60);
        assert_eq!(world.keeper.month(), "2026-11");
        world.pass_looking(60);
        assert_eq!(world.keeper.month(), "2036-11", "it has stayed there for a day");
    }

    #[test]
    fn the_wall_clock_at_which_so_much_will_have_been_seen() {
        let world = World::new();
        let due = world.keeper.now().seen + 7 * DAY;
        let start = world.clocks.read().wall;
        world.pass_looking(60);
        assert_eq!(world.keeper.now().wall_at(due), start + 7 * DAY);
        world.clocks.jump(-DAY);
        assert_eq!(world.keeper.now().wall_at(due), start + 6 * DAY);
    }
}
