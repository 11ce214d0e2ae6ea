//! How much of the API each user has: places for connections, and requests a second.
//!
//! A connection has a place before anything is read from it, and each request keeps it to its end, also when its caller
//! hangs up: so what a user has the daemon do at once is bounded, too. The owner's places are nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::catalogue::{Catalogue, accounts};
use crate::limits;

/// The shares of all users with an account, who are known when the daemon has read the accounts file.
pub(crate) struct Shares {
    of: RwLock<HashMap<u32, Arc<Share>>>,
    /// Places that all users but the owner share.
    common: Arc<Semaphore>,
    strangers: Refusals,
}

/// Places at which those are awaited who will be refused.
pub(super) struct Refusals(Semaphore);

/// A user's share.
pub(super) struct Share {
    own: Arc<Semaphore>,
    /// Places for connections, also for those that wait to be served.
    connections: Arc<Semaphore>,
    /// Places that all users but the owner share.
    common: Option<Arc<Semaphore>>,
    rate: Option<Mutex<Rate>>,
    /// Places for files that the user has passed, until they are closed.
    files: Arc<Semaphore>,
    refusals: Refusals,
}

/// A connection that waits for its place.
pub(super) struct Waiting {
    share: Arc<Share>,
    connection: OwnedSemaphorePermit,
}

/// A connection's place. Whoever has it comes in order, each user in its turn: tokio's semaphores are fair.
pub(super) struct Place {
    share: Arc<Share>,
    _permits: [Option<OwnedSemaphorePermit>; 3],
}

impl Shares {
    /// # Errors
    /// The catalogue's.
    pub(crate) async fn load(catalogue: &Catalogue) -> Result<Self, sqlx::Error> {
        let principals = accounts::uids(&mut *catalogue.read().await?).await?;
        Ok(Self::of(principals))
    }

    /// After another reading of the accounts file: who has a share keeps it, with what is taken of it.
    ///
    /// # Errors
    /// The catalogue's.
    pub(crate) async fn renew(&self, catalogue: &Catalogue) -> Result<(), sqlx::Error> {
        let principals = accounts::uids(&mut *catalogue.read().await?).await?;
        self.change(principals);
        Ok(())
    }

    /// For these user ids, each with whether the accounts file has it; the owner is not in there.
    fn of(principals: Vec<(u32, bool)>) -> Self {
        let shares = Shares {
            of: RwLock::default(),
            common: Arc::new(Semaphore::new(limits::CONNECTIONS)),
            strangers: Refusals::new(),
        };
        shares.change(principals);
        shares
    }

    fn change(&self, principals: Vec<(u32, bool)>) {
        let mut shares = self.of.write().unwrap_or_else(PoisonError::into_inner);
        let new = |listed| {
            Arc::new(match listed {
                true => Share::new(limits::CONNECTIONS_OF_USER, Some(Arc::clone(&self.common))),
                false => Share::new(limits::CONNECTIONS_OF_OWNER, None),
            })
        };
        let mut before = std::mem::take(&mut *shares);
        let share = |(uid, listed)| (uid, before.remove(&uid).unwrap_or_else(|| new(listed)));
        *shares = principals.into_iter().map(share).collect();
    }

    /// The share of a user with an account.
    pub(super) fn find(&self, uid: u32) -> Option<Arc<Share>> {
        let shares = self.of.read().unwrap_or_else(PoisonError::into_inner);
        shares.get(&uid).cloned()
    }

    /// For users without an account, all together.
    pub(super) fn strangers(&self) -> &Refusals {
        &self.strangers
    }
}

impl Refusals {
    fn new() -> Self {
        Refusals(Semaphore::new(limits::CONNECTIONS_REFUSED))
    }

    /// A place, if one is free.
    pub(super) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.0.try_acquire().ok()
    }
}

impl Share {
    fn new(places: usize, common: Option<Arc<Semaphore>>) -> Self {
        Share {
            own: Arc::new(Semaphore::new(places)),
            connections: Arc::new(Semaphore::new(places + limits::CONNECTIONS_WAITING)),
            rate: common.is_some().then(|| Mutex::new(Rate::default())),
            common,
            // A file on each connection, and those of copies.
            files: Arc::new(Semaphore::new(places + limits::PASSED_OF_ACCOUNT)),
            refusals: Refusals::new(),
        }
    }

    /// Nothing where too many connections of the user wait already.
    pub(super) fn connect(self: &Arc<Self>) -> Option<Waiting> {
        let connection = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        let share = Arc::clone(self);
        Some(Waiting { share, connection })
    }

    /// For those that are too many.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }
}

impl Waiting {
    /// Waits for one of the user's places, and only then for one of all: so nobody stands in the common queue more than
    /// once for each place of its own.
    pub(super) async fn place(self) -> Place {
        // The semaphores are never closed.
        let own = Arc::clone(&self.share.own).acquire_owned().await.ok();
        let common = match &self.share.common {
            Some(common) => Arc::clone(common).acquire_owned().await.ok(),
            None => None,
        };
        Place {
            share: self.share,
            _permits: [own, common, Some(self.connection)],
        }
    }
}

impl Place {
    /// Places for files that the user passes.
    pub(super) fn files(&self) -> Arc<Semaphore> {
        Arc::clone(&self.share.files)
    }

    /// Waits until the user's next request is due.
    pub(super) async fn turn(&self) {
        if let Some(rate) = &self.share.rate {
            let due = rate
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .due(Instant::now());
            tokio::time::sleep_until(due).await;
        }
    }
}

/// When a user's requests are due: evenly, but for a second's worth of them at once after a pause.
#[derive(Default)]
struct Rate {
    /// When all requests until now would have been due, had there never been a pause.
    even: Option<Instant>,
}

impl Rate {
    fn due(&mut self, now: Instant) -> Instant {
        let even = self.even.map_or(now, |even| even.max(now));
        self.even = Some(even + Duration::from_secs(1) / limits::REQUESTS_A_SECOND);
        now.max(even - Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: u32 = 0;
    const ONE: u32 = 1;
    const OTHER: u32 = 2;

    fn shares() -> Shares {
        let others = (ONE..100).map(|uid| (uid, true));
        Shares::of([(OWNER, false)].into_iter().chain(others).collect())
    }

    fn connect(shares: &Shares, uid: u32) -> Option<Waiting> {
        shares.find(uid).unwrap().connect()
    }

    /// The place of a connection that does not have to wait for it.
    async fn place(shares: &Shares, uid: u32) -> Option<Place> {
        let waiting = connect(shares, uid)?;
        tokio::select! {
            biased;
            place = waiting.place() => Some(place),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn a_user_with_many_connections_leaves_places_to_the_others() {
        let shares = shares();
        let mut places = Vec::new();
        while let Some(place) = place(&shares, ONE).await {
            places.push(place);
        }
        assert_eq!(places.len(), limits::CONNECTIONS_OF_USER);
        assert!(place(&shares, OTHER).await.is_some());
        assert!(place(&shares, OWNER).await.is_some());
        places.pop();
        assert!(place(&shares, ONE).await.is_some());
    }

    #[tokio::test]
    async fn the_owner_has_places_that_all_others_together_cannot_take() {
        let shares = shares();
        let mut places = Vec::new();
        for uid in ONE..100 {
            while let Some(place) = place(&shares, uid).await {
                places.push(place);
            }
        }
        assert_eq!(places.len(), limits::CONNECTIONS);
        let mut own = Vec::new();
        while let Some(place) = place(&shares, OWNER).await {
            own.push(place);
        }
        assert_eq!(own.len(), limits::CONNECTIONS_OF_OWNER);
    }

    #[tokio::test]
    async fn so_many_connections_wait_and_no_more() {
        let shares = shares();
        let connections: Vec<_> = std::iter::from_fn(|| connect(&shares, ONE)).collect();
        assert_eq!(
            connections.len(),
            limits::CONNECTIONS_OF_USER + limits::CONNECTIONS_WAITING
        );
        assert!(connect(&shares, OTHER).is_some());
        drop(connections);
        assert!(connect(&shares, ONE).is_some());
    }

    #[test]
    fn requests_come_at_once_after_a_pause_and_evenly_after_that() {
        let mut rate = Rate::default();
        let start = Instant::now();
        for _ in 0..=limits::REQUESTS_A_SECOND {
            assert_eq!(rate.due(start), start);
        }
        let step = Duration::from_secs(1) / limits::REQUESTS_A_SECOND;
        assert_eq!(rate.due(start), start + step);
        assert_eq!(rate.due(start), start + 2 * step);
        let later = start + Duration::from_secs(10);
        assert_eq!(rate.due(later), later);
    }
}
