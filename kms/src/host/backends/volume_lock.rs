//! Locks on volumes: no attachment is begun or ended while a maintenance process has the store, nor the other way
//! round, and one maintenance is done at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedMutexGuard, watch};

/// Held while a store is handed over, maintained, or taken back.
pub(crate) struct VolumeLock {
    volume: Arc<Volume>,
    _alone: OwnedMutexGuard<()>,
}

impl VolumeLock {
    /// From now on, until the lock is let go, those who cannot wait for hours need not.
    pub(crate) fn is_long(&self) {
        self.volume.is_long.send_replace(true);
    }
}

impl Drop for VolumeLock {
    fn drop(&mut self) {
        self.volume.is_long.send_replace(false);
    }
}

/// The lock on one volume.
#[derive(Debug, Default)]
struct Volume {
    alone: Arc<tokio::sync::Mutex<()>>,
    /// Whether that can take hours.
    is_long: watch::Sender<bool>,
}

/// The locks on volumes, by volume.
#[derive(Debug, Default)]
pub(crate) struct VolumeLocks(Mutex<HashMap<String, Weak<Volume>>>);

impl VolumeLocks {
    /// Waits for the lock on a volume.
    pub(crate) async fn take(&self, volume: &str) -> VolumeLock {
        let volume = self.volume(volume);
        let alone = Arc::clone(&volume.alone).lock_owned().await;
        VolumeLock {
            volume,
            _alone: alone,
        }
    }

    /// The lock on a volume; none if it is, or becomes meanwhile, [long](VolumeLock::is_long) that of another.
    pub(super) async fn take_soon(&self, volume: &str) -> Option<VolumeLock> {
        let known = self.volume(volume);
        let mut is_long = known.is_long.subscribe();
        tokio::select! {
            lock = self.take(volume) => Some(lock),
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
        let mut locks = self.look();
        locks.retain(|_, lock| lock.strong_count() > 0);
        let known = locks.get(volume).and_then(Weak::upgrade);
        let known = known.unwrap_or_default();
        locks.insert(volume.to_owned(), Arc::downgrade(&known));
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
    async fn a_lock_is_one_s_at_a_time_and_leaves_nothing() {
        let locks = VolumeLocks::default();
        let one = locks.take("disk-1").await;
        let _other = locks.take("disk-2").await;
        assert!(locks.is_taken("disk-1") && !locks.is_taken("disk-3"));
        let waiting = locks.take("disk-1");
        tokio::pin!(waiting);
        assert!(!locks.is_awaited("disk-1"));
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(20), &mut waiting)
                .await
                .is_err()
        );
        assert!(locks.is_awaited("disk-1") && !locks.is_awaited("disk-2"));
        drop(one);
        drop(waiting.await);
        assert!(!locks.is_taken("disk-1"));
        let _third = locks.take("disk-3").await;
        assert_eq!(locks.look().len(), 2);
    }

    #[tokio::test]
    async fn nobody_has_to_wait_for_one_that_takes_hours() {
        let locks = VolumeLocks::default();
        let long = locks.take("disk-1").await;
        // Also one who has begun to wait before that was known.
        let (none, ()) = tokio::join!(locks.take_soon("disk-1"), async { long.is_long() });
        assert!(none.is_none() && locks.take_soon("disk-1").await.is_none());
        assert!(locks.take_soon("disk-2").await.is_some());
        drop(long);
        assert!(locks.take_soon("disk-1").await.is_some());
    }
}
