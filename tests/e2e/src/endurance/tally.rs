//! What was done, and what is wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Shared by all threads.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// By outcome: `done`, or a refusal's code.
    outcomes: BTreeMap<String, u64>,
    events: BTreeMap<&'static str, u64>,
    /// Of calls that have nothing to do with the mount that hangs, made and answered while it did.
    beside_a_hang: Vec<Duration>,
    wrong: Vec<String>,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outcome(&self, outcome: &str) {
        *self.lock().outcomes.entry(outcome.to_owned()).or_default() += 1;
    }

    pub(super) fn event(&self, what: &'static str) {
        *self.lock().events.entry(what).or_default() += 1;
    }

    pub(super) fn beside_a_hang(&self, time: Duration) {
        self.lock().beside_a_hang.push(time);
    }

    pub(super) fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        println!("WRONG: {what}");
        self.lock().wrong.push(what);
    }

    pub(super) fn is_clean(&self) -> bool {
        self.lock().wrong.is_empty()
    }

    pub(super) fn print(&self) {
        let mut counts = self.lock();
        println!("calls: {}", counts.outcomes.values().sum::<u64>());
        for (outcome, count) in &counts.outcomes {
            println!("{count:>8}  {outcome}");
        }
        println!("events:");
        for (event, count) in &counts.events {
            println!("{count:>8}  {event}");
        }
        counts.beside_a_hang.sort();
        let times = &counts.beside_a_hang;
        if let Some(longest) = times.last() {
            let at = |share: f64| times[(share * (times.len() - 1) as f64) as usize];
            println!(
                "{} calls beside a mount that hung: median {:.0?}, 99 % within {:.0?}, longest {longest:.0?}",
                times.len(),
                at(0.5),
                at(0.99),
            );
        }
        println!("wrong: {}", counts.wrong.len());
        for wrong in &counts.wrong {
            println!("  {wrong}");
        }
    }
}
