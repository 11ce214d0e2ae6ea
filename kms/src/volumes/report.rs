//! What layered stores hold, for whoever looks at disks and snapshots. A store is asked by one at a time, however many look:
//! a disk that is not attached needs a process for that.

use std::sync::Arc;
use std::time::Instant;

use crate::catalogue::{copies, services};
use crate::context::Kms;
use crate::context::reports::{Known, Volume};
use crate::error::Result;
use crate::volumes::commands;
use crate::{clock, limits};

/// What a volume's store holds; what it held when it was last asked, if it does not say so soon, if a copy has it, which would
/// have to let us in each time, or if its disk's process is started only when an operator says so.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn of(kms: &Arc<Kms>, volume: &str) -> Result<Option<Known>> {
    let now = Instant::now();
    let entry = kms.reports.entry(volume);
    let can_be_asked = {
        let mut db = kms.catalogue.read().await?;
        let copied = copies::on_volume(&mut db, volume).await?.is_some();
        let service = services::of_disk(&mut db, volume).await?;
        let held = service.is_some_and(|service| service.held && !kms.supervisor.is_serving(&service.id));
        !copied && !held
    };
    let fresh = match can_be_asked {
        false => None,
        true => tokio::time::timeout(limits::SHOW_TIME, ask(kms, volume, &entry, now))
            .await
            .ok(),
    };
    Ok(match fresh {
        Some(Some(known)) => Some(known),
        _ => entry.look().known.clone().map(|known| Known {
            as_of: Some(known.told.clone()),
            ..known
        }),
    })
}

/// The answer to a question that has begun after `now`; none if it has failed.
async fn ask(kms: &Arc<Kms>, volume: &str, entry: &Arc<Volume>, now: Instant) -> Option<Known> {
    let asking = Arc::clone(&entry.asking).lock_owned().await;
    let learnt = entry.look().clone();
    if learnt.asked.is_some_and(|asked| asked >= now) {
        return learnt.known.filter(|_| !learnt.failed);
    }
    let (kms, entry, volume) = (Arc::clone(kms), Arc::clone(entry), volume.to_owned());
    // Begun, it goes on to its end: a process that is asked is not killed because nobody waits any more.
    let asked = tokio::spawn(async move {
        let _asking = asking;
        let began = Instant::now();
        let report = commands::report(&kms, &volume).await;
        let mut learnt = entry.look();
        learnt.asked = Some(began);
        let has_failed_before = std::mem::replace(&mut learnt.failed, report.is_err());
        match report {
            Ok(report) => {
                learnt.known = Some(Known {
                    report: Arc::new(report),
                    as_of: None,
                    told: clock::now(),
                });
                learnt.known.clone()
            }
            Err(error) => {
                // Once, however many look until it can be shown again.
                let level = match has_failed_before {
                    true => log::Level::Debug,
                    false => log::Level::Warn,
                };
                let why = error.full_message();
                log::log!(level, "{volume}: its store cannot be shown: {why}");
                None
            }
        }
    });
    asked.await.ok().flatten()
}
