//! What a metered call costs (rule M02).

use crate::catalogue::intents::{self, IntentRow};
use crate::catalogue::{Write, accounts, usage};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::profile::Profile;

/// Takes the price of one call from the account's balance, unless one of the month's free calls is left; gives the
/// price. In the transaction that counts the call, so that a refusal changes nothing and no call is counted twice.
///
/// # Errors
/// [`Code::BalanceExhausted`].
pub(crate) async fn take(kms: &Kms, tx: &mut Write, account: &str, month: &str) -> Result<i64> {
    let before = usage::calls_in(tx, account, month).await?;
    let price = price(kms.profile, before.unsigned_abs());
    if price == 0 || accounts::charge(tx, account, price).await? {
        return Ok(price);
    }
    let text = format!(
        "the balance of account {account} does not suffice for this call, which costs {price} micro-units: ask an \
         admin to run `sealctl account credit {account} AMOUNT`; attached disks go on"
    );
    Err(Error::new(Code::BalanceExhausted, text))
}

/// Ends an intent that was undone: its call does not count, and what was taken for it is given back. If it was one of the month's
/// free calls, one that was paid since is free instead: as many are paid as if it had never been decided on.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn give_back(
    profile: &Profile,
    tx: &mut Write,
    region: &str,
    intent: &IntentRow,
) -> Result<()> {
    let Some(_) = intents::refund(tx, region, intent).await? else {
        return Ok(());
    };
    let (Some(free), price) = (profile.free_calls, price_of(profile)) else {
        return Ok(());
    };
    let (account, month) = (intent.account.as_str(), intent.month.as_str());
    let calls = usage::calls_in(tx, account, month).await?.unsigned_abs();
    let owed = i64::try_from(calls.saturating_sub(free))
        .unwrap_or(i64::MAX)
        .saturating_mul(price);
    if price > 0 && usage::charged_in(tx, account, month).await? > owed {
        intents::make_free(tx, (account, region, month), price).await?;
    }
    Ok(())
}

fn price_of(profile: &Profile) -> i64 {
    i64::try_from(profile.call_price).unwrap_or(i64::MAX)
}

/// The price of the call that follows `before` calls in the month.
fn price(profile: &Profile, before: u64) -> i64 {
    match profile.free_calls {
        Some(free) if before >= free => price_of(profile),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::calls::tests::{World, caller, new_disk};
    use crate::catalogue::intents::Work;
    use sealblk_api::CreateDisk;

    #[test]
    fn rule_m01_the_profile_says_whether_reinit_counts() {
        let named = |name| Profile::named(name).unwrap();
        let rollback = Work::Rollback {
            snapshot: "snap-1".into(),
        };
        assert_eq!(Work::Reinitialise.meter(named("sealblk")), Some("reinit"));
        assert_eq!(Work::Reinitialise.meter(named("tencent-cbs")), None);
        assert_eq!(rollback.meter(named("tencent-cbs")), Some("rollback"));
        assert_eq!(Work::Resize { size: 512 }.meter(named("tencent-cbs")), None);
    }

    async fn decided(world: &World, name: &str) -> IntentRow {
        let disk = CreateDisk {
            name: name.into(),
            ..new_disk(None)
        };
        world.kms.decide(&caller(), &disk).await.unwrap()
    }

    /// A call that took the last free one is undone after another was charged: that is the free one then.
    #[tokio::test(flavor = "multi_thread")]
    async fn rule_m02_as_many_calls_are_paid_as_if_one_that_is_undone_had_never_been() {
        for is_closed in [false, true] {
            let mut world = World::new().await;
            let classic = Profile::named("alibaba-ecs-classic").unwrap();
            Arc::get_mut(&mut world.kms).unwrap().profile = classic;
            let month = world.kms.clock.month();
            let mut tx = world.kms.catalogue.write().await.unwrap();
            accounts::credit(&mut tx, "default", 1000).await.unwrap();
            for _ in 1..classic.free_calls.unwrap() {
                usage::count(&mut tx, "default", "elsewhere", &month, "attach", 0)
                    .await
                    .unwrap();
            }
            tx.commit().await.unwrap();
            let (free, charged) = (decided(&world, "free").await, decided(&world, "charged").await);
            assert_eq!((free.charged, charged.charged), (0, 100));
            let state = async || {
                let mut db = world.kms.catalogue.read().await.unwrap();
                let account = accounts::find(&mut db, "default").await.unwrap().unwrap();
                let calls = usage::calls_in(&mut db, "default", &month).await.unwrap();
                (account.balance, account.charged, calls)
            };
            assert_eq!(state().await, (900, 100, 20_001));
            let give_back = async |intent: &IntentRow| {
                let mut tx = world.kms.catalogue.write().await.unwrap();
                super::give_back(classic, &mut tx, &world.kms.meta.region, intent)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            };
            if is_closed {
                let mut tx = world.kms.catalogue.write().await.unwrap();
                intents::close(&mut tx, &charged).await.unwrap();
                tx.commit().await.unwrap();
            }
            give_back(&free).await;
            assert_eq!(state().await, (1000, 0, 20_000));
            give_back(&free).await;
            assert_eq!(state().await, (1000, 0, 20_000), "once");
            if !is_closed {
                // Nothing was taken for it any more.
                give_back(&charged).await;
                assert_eq!(state().await, (1000, 0, 19_999));
            }
        }
    }

    #[test]
    fn rule_m02_calls_cost_beyond_the_free_ones_alone() {
        let named = |name| Profile::named(name).unwrap();
        let classic = named("alibaba-ecs-classic");
        assert_eq!(
            [0, 19_999, 20_000, 20_001].map(|before| price(classic, before)),
            [0, 0, 100, 100]
        );
        assert_eq!(price(named("tencent-cbs"), 0), 100);
        assert_eq!(price(named("sealblk"), u64::MAX), 0);
    }
}
