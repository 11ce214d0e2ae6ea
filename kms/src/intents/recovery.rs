//! The start of a daemon: takes over living backends, ends what a crash has left open, and starts what is missing.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ending::end;
use super::is_open;
use crate::catalogue::intents::{self, IntentRow, Work};
use crate::catalogue::services::{self, ServiceRow};
use crate::catalogue::{attachments, instances, volumes};
use crate::conditions::Condition;
use crate::context::Kms;
use crate::context::retry_queue::lock;
use crate::copies::job;
use crate::error::Result;
use crate::host::aside;
use crate::host::backends::{Tokens, by_name, maintained};
use crate::limits;
use crate::volumes::{on_full, path, reconcile, service_plan, sweep};
use sealblk_proto::token::TokenHash;

/// Tries again, with growing delays, as long as the KMS lives.
async fn retry(kms: Weak<Kms>) {
    let mut delay = limits::RETRY_DELAY_FIRST;
    loop {
        tokio::time::sleep(delay).await;
        let Some(kms) = kms.upgrade() else { return };
        if !kms.retries.flagged.swap(false, Ordering::SeqCst) {
            delay = limits::RETRY_DELAY_FIRST;
            continue;
        }
        let Ok(_running) = kms.begin().await else { return };
        if let Err(error) = retry_once(&kms).await {
            log::error!("it will be tried again: {}", error.full_message());
            kms.retries.flag();
            delay = (2 * delay).min(limits::RETRY_DELAY_MOST);
        } else {
            delay = limits::RETRY_DELAY_FIRST;
        }
    }
}

/// One attempt at everything; the last error if something is left.
async fn retry_once(kms: &Arc<Kms>) -> Result<()> {
    let mut outcome = Ok(());
    for row in unadopted(kms).await? {
        match adopt(kms, &row).await {
            Ok(()) => {
                lock(&kms.retries.unadopted).remove(&row.id);
                if !row.held {
                    kms.supervisor.supervise(&row.id);
                }
            }
            Err(error) => outcome = Err(error),
        }
    }
    outcome = outcome.and(end_open(kms, false).await);
    if kms.retries.uncompared.swap(false, Ordering::SeqCst) {
        let kms = Arc::clone(kms);
        tokio::spawn(async move {
            let Ok(_running) = kms.begin().await else { return };
            if let Err(error) = reconcile::all(&kms).await {
                log::error!("stores are not compared: {}", error.full_message());
            }
        });
    }
    outcome.and(sweep::sweep(kms).await)
}

/// The services that could not be adopted and that there still are.
async fn unadopted(kms: &Kms) -> Result<Vec<ServiceRow>> {
    let ids: Vec<_> = lock(&kms.retries.unadopted).iter().cloned().collect();
    let mut db = kms.catalogue.read().await?;
    let mut rows = Vec::new();
    for id in ids {
        match services::get(&mut db, &id).await? {
            Some(row) => rows.push(row),
            None => drop(lock(&kms.retries.unadopted).remove(&id)),
        }
    }
    Ok(rows)
}

/// Brings catalogue, files and backends together again.
///
/// # Errors
/// The catalogue's. What fails for one attachment or intent is logged, and the others go on.
pub(crate) async fn recover(kms: &Arc<Kms>) -> Result<()> {
    // Before stores are asked anything: these have them.
    maintained::end_left(&kms.state.run()).await;
    let rows = remaining(kms).await?;
    for row in &rows {
        if let Err(error) = adopt(kms, row).await {
            log::error!("{}: it cannot be served: {}", row.id, error.full_message());
            kms.retries.not_adopted(&row.id);
        }
    }
    let ours: Vec<_> = rows
        .iter()
        // A process that another supervisor starts is waited for if it was ever there.
        .filter(|row| (row.start || row.backend_pid.is_some()) && !row.held)
        .map(|row| row.id.clone())
        .collect();
    kms.supervisor.wait_for_backends(&ours).await;
    // What is not ended yet goes on.
    let _ = end_open(kms, true).await;
    // Theirs were the intents of the disks that came with them.
    let mut tx = kms.catalogue.write().await?;
    instances::delete_unmade(&mut tx).await?;
    tx.commit().await?;
    let undecided = open(kms).await?;
    // Whose first attachment it is; one of several is no reason not to serve the others.
    let attaching = |row: &ServiceRow| {
        undecided.iter().any(|intent| match &intent.work {
            Work::Attach { attachment } => *attachment == row.id,
            _ => false,
        })
    };
    let rows = remaining(kms).await?;
    // A service that was not adopted is supervised when it is.
    let adopted = |row: &ServiceRow| !lock(&kms.retries.unadopted).contains(&row.id);
    for row in rows
        .iter()
        .filter(|row| adopted(row) && !attaching(row) && !row.held)
    {
        kms.supervisor.supervise(&row.id);
    }
    kms.retries.uncompared.store(true, Ordering::SeqCst);
    kms.retries.flag();
    tokio::spawn(retry(Arc::downgrade(kms)));
    tokio::spawn(on_full::watch(Arc::downgrade(kms)));
    tokio::spawn(job::carry_out(Arc::downgrade(kms)));
    remove_runtimes(kms).await?;
    let kms = Arc::clone(kms);
    tokio::spawn(async move {
        if let Err(error) = report_orphans(&kms).await {
            log::warn!("files of no disk are not known: {}", error.full_message());
        }
        if let Err(error) = path::note_media(&kms).await {
            log::warn!("what the disks are on is not known: {}", error.full_message());
        }
    });
    Ok(())
}

/// The open intents, but for those that this version cannot read: `kms status` shows these.
async fn open(kms: &Kms) -> Result<Vec<IntentRow>> {
    let open = {
        let mut db = kms.catalogue.read().await?;
        intents::all(&mut db).await?
    };
    let unreadable = open.unreadable.iter().map(|(id, why)| format!("{id} ({why})"));
    let unreadable: Vec<_> = unreadable.collect();
    if unreadable.is_empty() {
        kms.conditions.clear(Condition::IntentUnreadable);
    } else {
        let text = format!(
            "calls that were begun stay open, and their disks as they are, because this version cannot read what they are: \
             {}: start the version that has begun them",
            unreadable.join(", ")
        );
        kms.conditions.raise(Condition::IntentUnreadable, text);
    }
    Ok(open.intents)
}

/// Ends the intents that are open and nobody's: those of each request in a task of its own, one after the other. Whatever is
/// behind their paths is waited for no longer than [`limits::RECOVERY_TIME`]; what is not ended by then goes on.
///
/// # Errors
/// The last of those that occurred by then.
async fn end_open(kms: &Arc<Kms>, at_start: bool) -> Result<()> {
    let mut by_request: BTreeMap<String, Vec<IntentRow>> = BTreeMap::new();
    for intent in open(kms).await? {
        if !lock(&kms.retries.running).contains_key(&intent.request) {
            by_request.entry(intent.request.clone()).or_default().push(intent);
        }
    }
    let places = Arc::new(Semaphore::new(limits::RECOVERIES));
    let mut tasks = JoinSet::new();
    for (request, intents) in by_request {
        let tracked = kms.retries.track(&request);
        let (kms, places) = (Arc::clone(kms), Arc::clone(&places));
        tasks.spawn(async move {
            let _tracked = tracked;
            let _place = places.acquire_owned().await;
            end_all(&kms, &intents, at_start).await
        });
    }
    let mut outcome = Ok(());
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Ok(Err(error)) = ended {
                outcome = Err(error);
            }
        }
    };
    let late = tokio::time::timeout(limits::RECOVERY_TIME, all).await;
    if late.is_err() {
        log::warn!(
            "{} calls are still being ended: others do not wait for them",
            tasks.len()
        );
        tasks.detach_all();
    }
    outcome
}

async fn end_all(kms: &Kms, intents: &[IntentRow], at_start: bool) -> Result<()> {
    let _running = kms.begin().await?;
    let mut outcome = Ok(());
    for intent in intents {
        // A task that had the intent open and does not run any more has closed it, or never will.
        if !at_start && !is_open(kms, intent).await? {
            continue;
        }
        if let Err(error) = end(kms, intent, at_start).await {
            log::error!(
                "{} of {} stays open: {}",
                intent.work.call(),
                intent.disk,
                error.full_message()
            );
            outcome = Err(error);
        } else if at_start
            && let Work::Attach { attachment } = &intent.work
            && remaining(kms).await?.iter().any(|row| row.id == *attachment)
        {
            kms.supervisor.supervise(attachment);
        }
    }
    outcome
}

async fn adopt(kms: &Kms, row: &ServiceRow) -> Result<()> {
    let plan = {
        let mut db = kms.catalogue.read().await?;
        service_plan::of(kms, &mut db, row).await?
    };
    let hash = |bytes: &Option<Vec<u8>>| {
        bytes
            .as_deref()
            .and_then(|bytes| bytes.try_into().ok())
            .map(TokenHash)
    };
    let tokens = Tokens {
        current: hash(&row.token),
        next: hash(&row.next_token),
    };
    kms.supervisor.adopt(plan, tokens)
}

async fn remaining(kms: &Kms) -> Result<Vec<ServiceRow>> {
    let mut db = kms.catalogue.read().await?;
    Ok(services::all(&mut db).await?)
}

fn names(path: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Removes the runtime directories that are no attachment's: they hold nothing but sockets, tokens and logs.
async fn remove_runtimes(kms: &Kms) -> Result<()> {
    let services = remaining(kms).await?.into_iter().map(|row| row.id);
    let mut db = kms.catalogue.read().await?;
    let attached = attachments::all(&mut db).await?.into_iter().map(|row| row.id);
    let known: HashSet<_> = services.chain(attached).collect();
    by_name::sweep(&kms.state.run(), |attachment| known.contains(attachment));
    for name in names(kms.state.run()) {
        let is_ours = known.contains(&name) || name.starts_with(maintained::PREFIX) || by_name::is_top(&name);
        if !is_ours && std::fs::remove_dir_all(kms.state.runtime(&name)).is_err() {
            log::warn!("{} belongs to no attachment", kms.state.runtime(&name).display());
        }
    }
    Ok(())
}

/// Says what else lies in the state directory and the catalogue does not know; it is never deleted by itself.
async fn report_orphans(kms: &Kms) -> Result<()> {
    for directory in [kms.state.disks(), kms.state.backups()] {
        let found = aside::look(&directory, limits::LOOK_TIME, |directory| {
            names(directory.to_owned())
        })
        .await;
        let mut db = kms.catalogue.read().await?;
        for name in found.unwrap_or_default() {
            if !volumes::exists(&mut db, &name).await? {
                log::warn!(
                    "{} belongs to no disk or backup: it was left, or put there",
                    directory.join(&name).display()
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::disk::delete::{DeleteDisk, Deleted};
    use crate::calls::run;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::catalogue::behind;
    use crate::catalogue::disks;
    use sealblk_api::CreateDisk;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_intent_that_cannot_be_read_keeps_no_other_from_being_ended() {
        let mut world = World::new().await;
        let mut opened = Vec::new();
        for name in ["one", "two"] {
            let disk = CreateDisk {
                name: name.to_owned(),
                ..new_disk(None)
            };
            run(&world.kms, caller(), disk).await.unwrap();
            let delete = DeleteDisk::new(name.to_owned(), Some(0));
            let Deleted::Removed(intent, _) = world.kms.decide(&caller(), &delete).await.unwrap() else {
                panic!("there are no days in the bin");
            };
            opened.push(intent);
        }
        // As a later version has begun it.
        let spoil = format!(
            "PRAGMA ignore_check_constraints = ON; UPDATE intents SET call = 'disk.move' WHERE id = '{}'",
            opened[0].id
        );
        let mut db = world.kms.catalogue.write_alone().await.unwrap();
        behind::run(&mut db, &spoil).await.unwrap();
        drop(db);
        world.crash_and_recover().await;
        let mut db = world.kms.catalogue.read().await.unwrap();
        while disks::state(&mut db, &opened[1].disk).await.unwrap().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(disks::state(&mut db, &opened[0].disk).await.unwrap().is_some());
        assert!(intents::is_open(&mut db, &opened[0].id).await.unwrap());
        let conditions = world.kms.conditions.all();
        let mut told = conditions
            .iter()
            .filter(|condition| condition.code == "IntentUnreadable");
        assert!(
            told.any(|told| told.message.contains(&opened[0].id)),
            "{conditions:?}"
        );
    }
}
