//! Turns on volumes: no attachment is begun or ended while a maintenance process has the store, nor the other way
//! round, and one maintenance is done at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Held while a store is handed over, maintained, or taken back.
pub(crate) type Turn = tokio::sync::OwnedMutexGuard<()>;

/// Who waits for which volume.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the turn on a volume.
    pub(crate) async fn take(&self, volume: &str) -> Turn {
        let turn = {
            let mut turns = self.look();
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(volume).and_then(Weak::upgrade);
            let turn = known.unwrap_or_default();
            turns.insert(volume.to_owned(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }

    /// Whether somebody has it.
    pub(super) fn is_taken(&self, volume: &str) -> bool {
        let turn = self.look().get(volume).and_then(Weak::upgrade);
        turn.is_some_and(|turn| turn.try_lock().is_err())
    }

    /// Whether somebody waits for it, while another has it.
    pub(super) fn is_awaited(&self, volume: &str) -> bool {
        // Each who has it or waits keeps it, and so does this look.
        let turn = self.look().get(volume).and_then(Weak::upgrade);
        turn.is_some_and(|turn| Arc::strong_count(&turn) > 2)
    }

    fn look(&self) -> MutexGuard<'_, HashMap<String, Weak<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_is_one_s_at_a_time_and_leaves_nothing() {
        let turns = Turns::default();
        let one = turns.take("disk-1").await;
        let _other = turns.take("disk-2").await;
        assert!(turns.is_taken("disk-1") && !turns.is_taken("disk-3"));
        let waiting = turns.take("disk-1");
        tokio::pin!(waiting);
        assert!(!turns.is_awaited("disk-1"));
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(20), &mut waiting)
                .await
                .is_err()
        );
        assert!(turns.is_awaited("disk-1") && !turns.is_awaited("disk-2"));
        drop(one);
        drop(waiting.await);
        assert!(!turns.is_taken("disk-1"));
        let _third = turns.take("disk-3").await;
        assert_eq!(turns.look().len(), 2);
    }
}
