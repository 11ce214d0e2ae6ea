//! What keys need in the background: their deletion day (rule K11), the month's fee (rule M03), rewrapping (rule K12).
//!
//! Nothing of this is remembered beyond what the catalogue says of the keys, so it goes on after a crash.

use std::sync::{Arc, Weak};

use super::{Kms, key_fee, key_rewrap};
use crate::audit::{self, Decision};
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::{Write, meta};
use crate::error::Result;
use crate::keystate::Event;
use crate::{clock, limits};

/// Does it, now and whenever it is told to or some time has passed, as long as the KMS lives.
pub(crate) async fn run(kms: Weak<Kms>) {
    loop {
        let Some(living) = kms.upgrade() else { return };
        let told = Arc::clone(&living.key_work);
        {
            let Ok(_running) = living.begin().await else {
                return;
            };
            if let Err(error) = once(&living).await {
                log::error!("keys: it will be tried again: {}", error.full_message());
            }
        }
        drop(living);
        let _ = tokio::time::timeout(limits::KEY_CLOCK_TIME, told.notified()).await;
    }
}

/// One round; the last error if something is left.
async fn once(kms: &Kms) -> Result<()> {
    let pending = {
        let mut db = kms.catalogue.read().await?;
        keys::pending_deletion(&mut db).await?
    };
    let mut outcome = Ok(());
    for key in pending {
        outcome = look_at(kms, &key).await.and(outcome);
    }
    let collected = collect_fees(kms).await;
    outcome.and(collected).and(key_rewrap::all(kms).await)
}

/// Destroys a key on its day, and says each day before that it will.
async fn look_at(kms: &Kms, listed: &KeyRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    // Its deletion may have been cancelled, or scheduled anew, since the keys were listed.
    let Some(key) = keys::find(&mut tx, &listed.account, &listed.id).await? else {
        return Ok(());
    };
    let Some(day) = key.deletion.clone() else {
        return Ok(());
    };
    let now = clock::now();
    if day <= now {
        return destroy(kms, tx, &key).await;
    }
    let yesterday = clock::in_hours(-limits::ALARM_HOURS);
    if key.alarmed.as_deref() > Some(yesterday.as_str()) {
        return Ok(());
    }
    let caller = kms.own_caller(&key.account)?;
    let protected = keys::count_resources(&mut tx, &key.id).await?;
    audit::alarm(
        &mut tx,
        &caller,
        &key.id,
        &format!("on {day}, with all that it protects: {protected} objects"),
    )
    .await?;
    keys::set_alarmed(&mut tx, &key.id, &now).await?;
    Ok(tx.commit().await?)
}

/// Rule K11: all versions are destroyed, and everything under them becomes unreadable.
async fn destroy(kms: &Kms, mut tx: Write, key: &KeyRow) -> Result<()> {
    let state = key.now().after(Event::Destroy)?;
    keys::destroy_material(&mut tx, &key.id).await?;
    keys::set_state(&mut tx, &key.id, state, None).await?;
    let caller = kms.own_caller(&key.account)?;
    audit::append(&mut tx, &caller, "key.destroy", &key.id, Decision::Allowed).await?;
    tx.commit().await?;
    kms.catalogue.forget_deleted().await;
    log::warn!("key {} is destroyed: its deletion day has come", key.id);
    Ok(())
}

async fn collect_fees(kms: &Kms) -> Result<()> {
    if kms.profile.customer_key_fee == 0 {
        return Ok(());
    }
    let mut tx = kms.catalogue.write().await?;
    for account in meta::accounts(&mut tx).await? {
        key_fee::collect(kms, &mut tx, &account).await?;
    }
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::super::key_deletion::{CancelDeletion, ScheduleDeletion};
    use super::super::run;
    use super::super::tests::{World, caller};
    use super::*;
    use crate::api::types::{self, CreateKey};
    use crate::error::Code;
    use crate::keystate::KeyState;

    async fn with_key() -> World {
        let world = World::new().await;
        let create = CreateKey {
            name: "mine".into(),
            import: false,
        };
        run(&world.kms, caller(), create).await.unwrap();
        world
    }

    async fn schedule_in(world: &World, days: Option<u16>) -> KeyRow {
        let options = types::ScheduleDeletion {
            days,
            ..types::ScheduleDeletion::default()
        };
        let schedule = ScheduleDeletion {
            key: "mine".into(),
            options,
        };
        run(&world.kms, caller(), schedule).await.unwrap();
        key(world).await
    }

    async fn schedule(world: &World) -> KeyRow {
        schedule_in(world, None).await
    }

    async fn key(world: &World) -> KeyRow {
        let mut db = world.kms.catalogue.read().await.unwrap();
        keys::find(&mut db, "default", "mine").await.unwrap().unwrap()
    }

    async fn alarms(world: &World) -> usize {
        let mut db = world.kms.catalogue.read().await.unwrap();
        let records = audit::list(&mut db, "default", 0, 1000).await.unwrap();
        records.iter().filter(|record| record.call == "key.alarm").count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k11_a_key_waits_for_all_the_days_that_were_asked_for_or_as_long_as_is_permitted() {
        let world = with_key().await;
        for (asked, days) in [(Some(7), 7), (None, 30)] {
            let least = clock::in_hours(24 * days);
            let key = schedule_in(&world, asked).await;
            let most = clock::in_hours(24 * days);
            let deletion = key.deletion.unwrap();
            assert!(least <= deletion && deletion <= most, "{days}: {deletion}");
            let cancel = CancelDeletion { key: "mine".into() };
            run(&world.kms, caller(), cancel).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k11_on_its_day_a_deletion_cannot_be_cancelled_any_more() {
        let world = with_key().await;
        let key_id = schedule(&world).await.id;
        {
            let mut tx = world.kms.catalogue.write().await.unwrap();
            let day = Some("2020-01-01T00:00:00.000Z");
            keys::set_state(&mut tx, &key_id, KeyState::PendingDeletion, day)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        let cancel = CancelDeletion { key: "mine".into() };
        let refused = run(&world.kms, caller(), cancel).await.err().unwrap();
        assert_eq!(refused.code(), Code::KeyStateInvalid);
        assert_eq!(key(&world).await.state, KeyState::PendingDeletion);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k11_each_day_before_its_deletion_raises_one_alarm() {
        let world = with_key().await;
        let listed = schedule(&world).await;
        for _ in 0..2 {
            look_at(&world.kms, &listed).await.unwrap();
            assert_eq!(alarms(&world).await, 1, "once a day");
        }
        {
            let mut tx = world.kms.catalogue.write().await.unwrap();
            let yesterday = clock::in_hours(-limits::ALARM_HOURS - 1);
            keys::set_alarmed(&mut tx, &listed.id, &yesterday).await.unwrap();
            tx.commit().await.unwrap();
        }
        look_at(&world.kms, &listed).await.unwrap();
        assert_eq!(alarms(&world).await, 2, "and on the next one again");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k11_a_key_whose_deletion_was_scheduled_anew_waits_again() {
        let world = with_key().await;
        // As it was listed on its day, before its owner cancelled that and thought again.
        let listed = KeyRow {
            deletion: Some("2020-01-01T00:00:00.000Z".into()),
            ..schedule(&world).await
        };
        let cancel = CancelDeletion { key: "mine".into() };
        run(&world.kms, caller(), cancel).await.unwrap();
        look_at(&world.kms, &listed).await.unwrap();
        let again = schedule(&world).await;
        look_at(&world.kms, &listed).await.unwrap();
        let mut db = world.kms.catalogue.read().await.unwrap();
        let key = keys::find(&mut db, "default", "mine").await.unwrap().unwrap();
        assert_eq!(
            (key.state, &key.deletion),
            (KeyState::PendingDeletion, &again.deletion)
        );
        assert!(keys::material(&mut db, &key.id, 1).await.unwrap().is_some());
    }
}
