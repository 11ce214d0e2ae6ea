//! What is done in the background once a minute, and whenever keys need it: their deletion day (rule K11), the month's fee (rule
//! M03), rewrapping (rule K12); before that, what the audit log and the clock are owed.
//!
//! Nothing of this is remembered beyond what the catalogue says of the keys, so it goes on after a crash.

use std::sync::{Arc, Weak};

use super::{archived, housekeeping, rewrap};
use crate::audit::{self, Decision};
use crate::catalogue::key_state::Event;
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::{Write, kept, meta};
use crate::context::Kms;
use crate::error::Result;
use crate::keys::deletion;
use crate::timekeeper::HOUR;
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
pub(crate) async fn once(kms: &Kms) -> Result<()> {
    kept::remove_old(&kms.state.catalogue());
    housekeeping::write(kms, false).await?;
    let pending = {
        let mut db = kms.catalogue.read().await?;
        keys::pending_deletion(&mut db).await?
    };
    let mut outcome = Ok(());
    for key in pending {
        outcome = look_at(kms, &key).await.and(outcome);
    }
    let collected = collect_fees(kms).await;
    let swept = archived::sweep(kms).await;
    let rewrapped = rewrap::all(kms).await;
    kms.catalogue.forget_rest().await?;
    outcome.and(collected).and(rewrapped).and(swept)
}

/// Destroys a key on its day, and says each day before that it will.
async fn look_at(kms: &Kms, listed: &KeyRow) -> Result<()> {
    let mut tx = kms.catalogue.write().await?;
    // The deletion may have been cancelled, or scheduled anew, since the keys were listed.
    let Some(key) = keys::find(&mut tx, &listed.account, &listed.id).await? else {
        return Ok(());
    };
    let times = kms.clock.now();
    let Some(deletion) = deletion::planned(&times, &key) else {
        return Ok(());
    };
    if deletion::is_due(&times, &key) {
        return destroy(kms, tx, &key).await;
    }
    let has_moved = key.deletion.as_ref() != Some(&deletion.day);
    if has_moved || key.deletion_seen.is_none() {
        keys::set_deletion(&mut tx, &key.id, &deletion).await?;
    }
    let (now, yesterday) = (times.wall(), times.wall() - limits::ALARM_HOURS * HOUR);
    // Later than now: the clock has been set back since.
    let is_said = key
        .alarmed
        .as_ref()
        .is_some_and(|said| *said > clock::at(yesterday) && *said <= clock::at(now));
    if is_said && !has_moved {
        return Ok(tx.commit().await?);
    }
    let day = &deletion.day;
    let caller = kms.own_caller(&key.account)?;
    let protected = keys::count_resources(&mut tx, &key.id).await?;
    audit::alarm(
        &mut tx,
        &caller,
        &key.id,
        &format!("on {day}, with all that it protects: {protected} objects"),
    )
    .await?;
    keys::set_alarmed(&mut tx, &key.id, &clock::at(now)).await?;
    Ok(tx.commit().await?)
}

/// Rule K11: all versions are destroyed, and everything under them becomes unreadable.
async fn destroy(kms: &Kms, mut tx: Write, key: &KeyRow) -> Result<()> {
    let state = key.now().after(Event::Destroy)?;
    keys::destroy_material(&mut tx, &key.id).await?;
    keys::set_state(&mut tx, &key.id, state, None).await?;
    let caller = kms.own_caller(&key.account)?;
    caller.facts.note("key", key.id.as_str());
    audit::append(&mut tx, &caller, "key.destroy", &key.id, Decision::Allowed).await?;
    tx.commit().await?;
    kms.catalogue.forget_destroyed().await;
    log::warn!("key {} is destroyed: its deletion day has come", key.id);
    Ok(())
}

async fn collect_fees(kms: &Kms) -> Result<()> {
    if kms.profile.customer_key_fee == 0 {
        return Ok(());
    }
    let mut tx = kms.catalogue.write().await?;
    for account in meta::accounts(&mut tx).await? {
        kms.fees().collect(&mut tx, &account).await?;
    }
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::key::deletion::{CancelDeletion, ScheduleDeletion};
    use crate::calls::run;
    use crate::calls::tests::{World, caller};
    use crate::catalogue::key_state::KeyState;
    use crate::catalogue::keys::Deletion;
    use crate::catalogue::{accounts, behind};
    use crate::error::Code;
    use crate::profile::Profile;
    use crate::timekeeper::DAY;
    use crate::timekeeper::fake::Fake;
    use sealblk_api::{self, CreateKey};

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
        let options = sealblk_api::ScheduleDeletion {
            days,
            ..sealblk_api::ScheduleDeletion::default()
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
        let records = audit::list(&mut db, "default", audit::Wanted::after(0, 1000))
            .await
            .unwrap();
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
            let deletion = Deletion {
                day: "2020-01-01T00:00:00.000Z".into(),
                seen: 0,
            };
            keys::set_state(&mut tx, &key_id, KeyState::PendingDeletion, Some(&deletion))
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

    /// With a key that is to be destroyed in seven days, and clocks that the test sets.
    async fn with_doomed_key() -> (World, Fake) {
        let (mut world, clocks) = (with_key().await, Fake::new());
        world.keep_time_by(&clocks).await;
        once(&world.kms).await.unwrap();
        schedule_in(&world, Some(7)).await;
        (world, clocks)
    }

    /// Time passes under the daemon's eyes.
    async fn pass(world: &World, clocks: &Fake, hours: u32) {
        for _ in 0..hours {
            clocks.pass(std::time::Duration::from_secs(3600));
            once(&world.kms).await.unwrap();
        }
    }

    async fn state(world: &World) -> KeyState {
        key(world).await.state
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k11_on_its_day_a_key_is_destroyed_and_not_before() {
        let (world, clocks) = with_doomed_key().await;
        pass(&world, &clocks, 7 * 24 - 1).await;
        assert_eq!(state(&world).await, KeyState::PendingDeletion);
        assert_eq!(alarms(&world).await, 7, "one for each day");
        // A step that is too small to be a jump takes nothing off.
        clocks.jump(HOUR - 1);
        for expected in [KeyState::PendingDeletion, KeyState::Destroyed] {
            clocks.pass(std::time::Duration::from_secs(1800));
            once(&world.kms).await.unwrap();
            assert_eq!(state(&world).await, expected);
        }
    }

    /// The clock of a host is wrong when it boots, or a time server is: what is destroyed then is lost for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k11_a_clock_that_jumps_destroys_no_key() {
        let (world, clocks) = with_doomed_key().await;
        let promised = key(&world).await.deletion;
        clocks.jump(8 * DAY);
        once(&world.kms).await.unwrap();
        let row = key(&world).await;
        assert_eq!(row.state, KeyState::PendingDeletion);
        assert_eq!(deletion::days_left(&world.kms.clock.now(), &row), Some(7));
        assert_eq!(
            row.deletion.as_deref(),
            Some("2026-12-05T00:00:00.000Z"),
            "by that clock"
        );
        assert_eq!(world.kms.conditions.all()[0].code, "ClockJumped");
        clocks.jump(-8 * DAY);
        once(&world.kms).await.unwrap();
        assert_eq!(key(&world).await.deletion, promised);
        let cancel = CancelDeletion { key: "mine".into() };
        run(&world.kms, caller(), cancel).await.unwrap();
        let mut db = world.kms.catalogue.read().await.unwrap();
        let records = audit::list(&mut db, "default", audit::Wanted::after(0, 1000))
            .await
            .unwrap();
        let jumps: Vec<_> = records
            .iter()
            .filter(|record| record.call == "clock.alarm")
            .collect();
        assert_eq!(jumps.len(), 2, "{records:?}");
        assert!(jumps[0].object.starts_with("forward by 8 days"), "{jumps:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k11_days_that_nobody_saw_are_waited_for() {
        let (mut world, clocks) = with_doomed_key().await;
        pass(&world, &clocks, 24).await;
        clocks.reboot(30 * DAY);
        world.keep_time_by(&clocks).await;
        once(&world.kms).await.unwrap();
        let row = key(&world).await;
        assert_eq!(deletion::days_left(&world.kms.clock.now(), &row), Some(6));
        assert_eq!(row.deletion.as_deref(), Some("2026-12-27T00:00:00.000Z"));
        pass(&world, &clocks, 6 * 24 - 1).await;
        assert_eq!(state(&world).await, KeyState::PendingDeletion);
        pass(&world, &clocks, 1).await;
        assert_eq!(state(&world).await, KeyState::Destroyed);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k11_a_deletion_that_was_scheduled_by_a_clock_ahead_does_not_wait_for_years() {
        let (mut world, clocks) = (with_key().await, Fake::new());
        clocks.jump(5000 * DAY);
        world.keep_time_by(&clocks).await;
        once(&world.kms).await.unwrap();
        schedule_in(&world, Some(7)).await;
        once(&world.kms).await.unwrap();
        clocks.jump(-5000 * DAY);
        once(&world.kms).await.unwrap();
        assert_eq!(
            key(&world).await.deletion.as_deref(),
            Some("2026-11-27T00:00:00.000Z")
        );
        let said = alarms(&world).await;
        pass(&world, &clocks, 7 * 24 - 1).await;
        assert_eq!(state(&world).await, KeyState::PendingDeletion);
        assert_eq!(
            alarms(&world).await,
            said + 6,
            "a time that has not come silences none"
        );
        pass(&world, &clocks, 1).await;
        assert_eq!(state(&world).await, KeyState::Destroyed);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_k11_a_deletion_of_an_earlier_version_waits_for_its_day_and_one_day_at_least() {
        let (world, clocks) = with_doomed_key().await;
        let of_earlier = async |day: &str| {
            let mut tx = world.kms.catalogue.write().await.unwrap();
            let change =
                format!("UPDATE keys SET deletion = '{day}', deletion_seen = NULL WHERE name = 'mine'");
            behind::run(&mut tx, &change).await.unwrap();
            tx.commit().await.unwrap();
            once(&world.kms).await.unwrap();
            let row = key(&world).await;
            (row.state, deletion::days_left(&world.kms.clock.now(), &row))
        };
        assert_eq!(
            of_earlier("2026-11-23T00:00:00.000Z").await,
            (KeyState::PendingDeletion, Some(3))
        );
        assert_eq!(
            of_earlier("2026-11-01T00:00:00.000Z").await,
            (KeyState::PendingDeletion, Some(1))
        );
        pass(&world, &clocks, 24).await;
        assert_eq!(state(&world).await, KeyState::Destroyed);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rule_m03_a_clock_that_jumps_neither_takes_nor_skips_a_month_s_fee() {
        let (mut world, clocks) = (World::new().await, Fake::new());
        world.keep_time_by(&clocks).await;
        let kms = Arc::get_mut(&mut world.kms).unwrap();
        kms.profile = Profile::named("alibaba-ecs").unwrap();
        assert!(kms.profile.customer_key_fee > 0);
        once(&world.kms).await.unwrap();
        {
            let mut tx = world.kms.catalogue.write().await.unwrap();
            accounts::credit(&mut tx, "default", 1_000_000_000_000)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        let create = CreateKey {
            name: "mine".into(),
            import: false,
        };
        run(&world.kms, caller(), create).await.unwrap();
        let months = async || world.calls("key-month").await;
        assert_eq!(months().await, 1);
        for _ in 0..2 {
            clocks.jump(60 * DAY);
            pass(&world, &clocks, 2).await;
            assert_eq!(months().await, 1, "no fee of a month that has not come");
            clocks.jump(-60 * DAY);
            pass(&world, &clocks, 2).await;
        }
        pass(&world, &clocks, 11 * 24).await;
        assert_eq!(months().await, 2, "that of December");
        // A clock that is wrong for so long that it is believed, and then is put right.
        clocks.jump(100 * DAY);
        pass(&world, &clocks, 25).await;
        assert_eq!(months().await, 5, "those of January, February and March");
        clocks.jump(-100 * DAY);
        pass(&world, &clocks, 25).await;
        assert_eq!(months().await, 2, "they are given back");
        assert_eq!(key(&world).await.fee_month.as_deref(), Some("2026-12"));
        pass(&world, &clocks, 31 * 24).await;
        assert_eq!(months().await, 3, "that of January is not skipped");
        let mut db = world.kms.catalogue.read().await.unwrap();
        let account = accounts::find(&mut db, "default").await.unwrap().unwrap();
        let fees = 3 * world.kms.profile.customer_key_fee.cast_signed();
        assert_eq!(
            (account.charged, account.balance),
            (fees, 1_000_000_000_000 - fees)
        );
    }
}
