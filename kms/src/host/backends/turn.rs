//! Turns on volumes: no attachment is begun or ended while a maintenance process has the store, nor the other way
//! round, and one maintenance is done at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedMutexGuard, watch};

/// Held while a store is handed over, maintained, or taken back.
pub(crate) struct Turn {
    volume: Arc<Volume>,
    _alone: OwnedMutexGuard<()>,
}

impl Turn {
    /// From now on, until the turn is over, those who cannot wait for hours need not.
    pub(crate) fn is_long(&self) {
        self.volume.is_long.send_replace(true);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.volume.is_long.send_replace(false);
    }
}

/// Whose turn it is on one volume.
#[derive(Debug, Default)]
struct Volume {
    alone: Arc<tokio::sync::Mutex<()>>,
    /// Whether that can take hours.
    is_long: watch::Sender<bool>,
}

/// The locks on volumes, by volume.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<Volume>>>);

impl Turns {
    /// Waits for the turn on a volume.
    pub(crate) async fn take(&self, volume: &str) -> Turn {
        let volume = self.volume(volume);
        let alone = Arc::clone(&volume.alone).lock_owned().await;
        Turn {
            volume,
            _alone: alone,
        }
    }

    /// The lock on a volume; none if it is, or becomes meanwhile, [long](Turn::is_long) that of another.
    pub(super) async fn take_soon(&self, volume: &str) -> Option<Turn> {
        let known = self.volume(volume);
        let mut is_long = known.is_long.subscribe();
        tokio::select! {
            turn = self.take(volume) => Some(turn),
            // The sender is kept until then.
            _ = is_long.wait_for(|is_long| *is_long) => None,
        }
    }

    /// Whether somebody has it.
    pub(super) fn is_taken(&self, volume: &str) -> bool {
        let known = self.look().get(volume).and_then(Weak::upgrade);
        known.is_some_and(|volume| volume.alone.try_lock().is_err())
    }

    /// Whether somebody waits for it, while another has it.
    pub(super) fn is_awaited(&self, volume: &str) -> bool {
        // Each who has it or waits keeps it, and so does this look.
        let known = self.look().get(volume).and_then(Weak::upgrade);
        known.is_some_and(|volume| Arc::strong_count(&volume) > 2)
    }

    fn volume(&self, volume: &str) -> Arc<Volume> {
        let mut turns = self.look();
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(volume).and_then(Weak::upgrade);
        let known = known.unwrap_or_default();
        turns.insert(volume.to_owned(), Arc::downgrade(&known));
        known
    }

    fn look(&self) -> MutexGuard<'_, HashMap<String, Weak<Volume>>> {
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

    #[tokio::test]
    async fn nobody_has_to_wait_for_one_that_takes_hours() {
        let turns = Turns::default();
        let long = turns.take("disk-1").await;
        // Also one who has begun to wait before that was known.
        let (none, ()) = tokio::join!(turns.take_soon("disk-1"), async { long.is_long() });
        assert!(none.is_none() && turns.take_soon("disk-1").await.is_none());
        assert!(turns.take_soon("disk-2").await.is_some());
        drop(long);
        assert!(turns.take_soon("disk-1").await.is_some());
    }
}
