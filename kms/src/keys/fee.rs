//! What customer keys cost each month (rule M03). What could not be paid is owed, and is paid as soon as there is credit.

use sqlx::SqliteConnection;

use crate::audit::{self, Caller, Decision, Facts};
use crate::catalogue::kinds::KeyOrigin;
use crate::catalogue::{Write, accounts, keys, usage};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
use crate::limits;
use crate::request;

/// A key that may owe its fee.
pub(crate) struct Owing<'a> {
    pub(crate) account: &'a str,
    /// Id of the key.
    pub(crate) key: &'a str,
    pub(crate) origin: KeyOrigin,
    /// The last month that has been paid.
    pub(crate) fee_month: Option<&'a str>,
}

/// What keys cost this month.
pub(crate) struct Fees<'a> {
    /// In micro-units; none where the profile has no fee.
    pub(crate) fee: Option<i64>,
    /// As the catalogue has it.
    pub(crate) month: String,
    pub(crate) region: &'a str,
}

impl Fees<'_> {
    /// Pays the month in which a key is made.
    ///
    /// # Errors
    /// [`Code::BalanceExhausted`].
    pub(crate) async fn pay_first(&self, tx: &mut Write, account: &str, key: &str) -> Result<()> {
        let Some(fee) = self.fee else { return Ok(()) };
        if self.pay(tx, account, key, (&self.month, fee)).await? {
            return Ok(());
        }
        let text = format!(
            "the balance of account {account} does not suffice for a key, which costs {fee} micro-units a month: ask an \
             admin to run `sealctl account credit {account} AMOUNT`"
        );
        Err(Error::new(Code::BalanceExhausted, text))
    }

    /// Takes the fees that the account's keys owe, of past months first, as far as the balance goes.
    ///
    /// # Errors
    /// The catalogue's.
    pub(crate) async fn collect(&self, tx: &mut Write, account: &str) -> Result<()> {
        let Some(fee) = self.fee else { return Ok(()) };
        self.give_back_ahead(tx, account).await?;
        for (key, fee_month) in keys::owing(tx, account, &self.month).await? {
            for month in months_after(fee_month.as_deref(), &self.month) {
                if !self.pay(tx, account, &key, (&month, fee)).await? {
                    log::warn!(
                        "account {account}: the balance does not suffice for what key {key} owes since {month}"
                    );
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What was paid for months that have not come is given back: the clock was ahead.
    async fn give_back_ahead(&self, tx: &mut Write, account: &str) -> Result<()> {
        let paid = usage::take_back_key_months(tx, account, self.region, &self.month).await?;
        if paid > 0 {
            accounts::credit(tx, account, paid).await?;
        }
        Ok(keys::take_back_fee_months(tx, account, &self.month).await?)
    }

    async fn pay(&self, tx: &mut Write, account: &str, key: &str, (month, fee): (&str, i64)) -> Result<bool> {
        if !accounts::charge(tx, account, fee).await? {
            return Ok(false);
        }
        usage::count(tx, account, self.region, month, "key-month", fee).await?;
        keys::set_fee_month(tx, key, month).await?;
        let caller = Caller {
            account: account.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id().cast_signed(),
            // It is taken by the call that needs the key, or else by the daemon.
            request: request::current().map_or_else(|| id::new(Kind::Request), Ok)?,
            facts: Facts::default(),
        };
        caller.facts.note("key", key);
        caller.facts.note("amount", fee);
        caller.facts.note("month", month);
        audit::append(tx, &caller, "key.fee", key, Decision::Allowed).await?;
        Ok(true)
    }

    /// Pays what the usable key owes, so that it can be used for something new; what is attached goes on.
    ///
    /// # Errors
    /// [`Code::KeyFeeUnpaid`].
    pub(crate) async fn check_paid(&self, tx: &mut Write, owing: &Owing<'_>) -> Result<()> {
        let Some(fee) = self.fee.filter(|_| owing.origin != KeyOrigin::Service) else {
            return Ok(());
        };
        let months = months_after(owing.fee_month, &self.month);
        for month in &months {
            if self.pay(tx, owing.account, owing.key, (month, fee)).await? {
                continue;
            }
            let text = format!(
                "the fee of key {} has not been paid for {}: ask an admin to run `sealctl account credit {} AMOUNT`",
                owing.key,
                said(&months),
                owing.account
            );
            return Err(Error::new(Code::KeyFeeUnpaid, text));
        }
        Ok(())
    }

    /// The account's keys that owe more than its balance, each with the months: they cannot be used for something new.
    ///
    /// # Errors
    /// The catalogue's.
    pub(crate) async fn unpaid(
        &self,
        db: &mut SqliteConnection,
        account: &str,
    ) -> Result<Vec<(String, String)>> {
        let Some(fee) = self.fee else {
            return Ok(Vec::new());
        };
        let owing = keys::owing(db, account, &self.month).await?;
        if owing.is_empty() {
            return Ok(Vec::new());
        }
        let balance = accounts::find(db, account).await?.map_or(0, |row| row.balance);
        let unpaid = owing.into_iter().filter_map(|(key, fee_month)| {
            let months = months_after(fee_month.as_deref(), &self.month);
            let owed = fee.saturating_mul(i64::try_from(months.len()).unwrap_or(i64::MAX));
            (owed > balance).then(|| (key, said(&months)))
        });
        Ok(unpaid.collect())
    }
}

/// The months after `paid` up to `now`, the newest [`limits::ARREARS_MONTHS`] of them; this month alone if none was paid.
fn months_after(paid: Option<&str>, now: &str) -> Vec<String> {
    let Some(last) = number(now) else {
        return Vec::new();
    };
    let first = paid.and_then(number).map_or(last, |paid| paid + 1);
    let first = first.max((last + 1).saturating_sub(limits::ARREARS_MONTHS));
    (first..=last)
        .map(|month| format!("{:04}-{:02}", month / 12, month % 12 + 1))
        .collect()
}

/// Months since the year 0, of one such as `2026-11`.
fn number(month: &str) -> Option<u32> {
    let (year, month) = month.split_once('-')?;
    let month: u32 = month.parse().ok().filter(|month| (1..=12).contains(month))?;
    let year: u32 = year.parse().ok().filter(|year| *year < 10_000)?;
    Some(year * 12 + month - 1)
}

/// Months as a sentence has them.
fn said(months: &[String]) -> String {
    match months {
        [] => String::new(),
        [month] => month.clone(),
        [first, .., last] => format!("{first} to {last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_m03_each_month_since_the_last_that_was_paid_is_owed_but_not_without_end() {
        assert_eq!(months_after(Some("2026-12"), "2026-12"), [""; 0]);
        assert_eq!(months_after(Some("2027-01"), "2026-12"), [""; 0]);
        assert_eq!(
            months_after(Some("2026-10"), "2027-01"),
            ["2026-11", "2026-12", "2027-01"]
        );
        assert_eq!(months_after(None, "2026-12"), ["2026-12"]);
        // By a clock that was never set.
        let years = months_after(Some("1970-01"), "2026-12");
        assert_eq!(years.len(), limits::ARREARS_MONTHS as usize);
        assert_eq!(years.last().map(String::as_str), Some("2026-12"));
    }
}
