//! Rule A03 while virtual machines run: those with encrypted disks are asked again what they can write to, every few minutes and
//! when the process of one of these disks has been restarted. Local storage that was plugged in since is an alarm, and no reason to
//! take disks from a guest.
//!
//! A machine that hangs holds up nobody: each is asked in a task of its own, for [`limits::MACHINE_AGAIN_TIME`] at most, since QMP
//! has one client at a time. What is not answered leaves what was known.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::audit::Decision;
use crate::catalogue::instances::{self, WatchedRow};
use crate::context::Kms;
use crate::error::Result;
use crate::host::machines::Rights;
use crate::limits;
use crate::volumes::machine_check::{self, Sockets};

/// Asks, as long as the KMS lives.
pub(crate) async fn run(kms: Weak<Kms>) {
    let mut services = None;
    loop {
        let Some(living) = kms.upgrade() else { return };
        if !living.profile.refuse_local_storage {
            return;
        }
        if let Err(error) = round(&living, services.as_ref()).await {
            log::warn!("machines are not asked again: {}", error.full_message());
        }
        let machines = Arc::clone(&living.machines);
        drop(living);
        let told = timeout(limits::MACHINE_WATCH_TIME, machines.wake.notified()).await;
        services = told.is_ok().then(|| machines.take_started());
    }
}

/// Asks the machines with disks of these services, or all.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn round(kms: &Arc<Kms>, services: Option<&BTreeSet<String>>) -> Result<()> {
    let watched = {
        let mut db = kms.catalogue.read().await?;
        instances::watched(&mut db, services).await?
    };
    if services.is_none() {
        let all = watched.iter().map(|row| row.instance.id.clone()).collect();
        kms.machines.keep_only(&all);
    }
    if watched.is_empty() {
        return Ok(());
    }
    let sockets = Arc::new(Sockets::of(kms).await?);
    let places = Arc::new(Semaphore::new(limits::MACHINES_AT_ONCE));
    let mut tasks = JoinSet::new();
    for row in watched {
        let (kms, sockets, places) = (Arc::clone(kms), Arc::clone(&sockets), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            if let Err(error) = ask(&kms, &sockets, &row).await {
                log::warn!("{}: {}", row.instance.id, error.full_message());
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn ask(kms: &Kms, sockets: &Sockets, row: &WatchedRow) -> Result<()> {
    let instance = &row.instance;
    let asked = machine_check::forbidden(sockets, Rights::of(row.uid), instance);
    let device = match timeout(limits::MACHINE_AGAIN_TIME, asked).await {
        Ok(Ok(device)) => device,
        Ok(Err(error)) => {
            log::debug!("{}: {}", instance.id, error.full_message());
            return Ok(());
        }
        Err(_) => {
            log::debug!("{}: its machine does not answer", instance.id);
            return Ok(());
        }
    };
    let Some(device) = device else {
        kms.machines.clean(&instance.id);
        return Ok(());
    };
    let error = machine_check::refusal(instance, &device);
    if !kms
        .machines
        .found(&instance.id, &instance.account, &error.to_string())
    {
        return Ok(());
    }
    log::warn!("{}: {error}", instance.id);
    let caller = kms.own_caller(&instance.account)?;
    let decision = Decision::Failed(&error);
    kms.record(&caller, "machine.alarm", &instance.id, decision).await
}
