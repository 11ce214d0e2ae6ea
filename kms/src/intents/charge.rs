//! What a metered call costs (rule M02).

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

/// The price of the call that follows `before` calls in the month.
fn price(profile: &Profile, before: u64) -> i64 {
    match profile.free_calls {
        Some(free) if before >= free => i64::try_from(profile.call_price).unwrap_or(i64::MAX),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::intents::Work;

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
