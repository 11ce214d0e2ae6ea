//! What customer keys cost each month (rule M03).

use crate::audit::{self, Caller, Decision, Facts};
use crate::catalogue::kinds::KeyOrigin;
use crate::catalogue::{Write, accounts, keys, usage};
use crate::error::{Code, Error, Result};
use crate::id::{self, Kind};
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
        if self.pay(tx, account, key, fee).await? {
            return Ok(());
        }
        let text = format!(
            "the balance of account {account} does not suffice for a key, which costs {fee} micro-units a month: ask an \
             admin to run `sealctl account credit {account} AMOUNT`"
        );
        Err(Error::new(Code::BalanceExhausted, text))
    }

    /// Takes the fees that the account's keys owe for this month, as far as the balance goes.
    ///
    /// # Errors
    /// The catalogue's.
    pub(crate) async fn collect(&self, tx: &mut Write, account: &str) -> Result<()> {
        let Some(fee) = self.fee else { return Ok(()) };
        keys::take_back_fee_months(tx, account, &self.month).await?;
        for key in keys::owing(tx, account, &self.month).await? {
            if !self.pay(tx, account, &key, fee).await? {
                log::warn!("account {account}: the balance does not suffice for the fee of key {key}");
                break;
            }
        }
        Ok(())
    }

    async fn pay(&self, tx: &mut Write, account: &str, key: &str, fee: i64) -> Result<bool> {
        if !accounts::charge(tx, account, fee).await? {
            return Ok(false);
        }
        usage::count(tx, account, self.region, &self.month, "key-month", fee).await?;
        keys::set_fee_month(tx, key, &self.month).await?;
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
        caller.facts.note("month", self.month.as_str());
        audit::append(tx, &caller, "key.fee", key, Decision::Allowed).await?;
        Ok(true)
    }

    /// Pays what the usable key owes for this month, so that it can be used for something new; what is attached goes on.
    ///
    /// # Errors
    /// [`Code::KeyFeeUnpaid`].
    pub(crate) async fn check_paid(&self, tx: &mut Write, owing: &Owing<'_>) -> Result<()> {
        let paid = owing.fee_month >= Some(self.month.as_str());
        let Some(fee) = self.fee.filter(|_| owing.origin != KeyOrigin::Service && !paid) else {
            return Ok(());
        };
        if self.pay(tx, owing.account, owing.key, fee).await? {
            return Ok(());
        }
        let text = format!(
            "the fee of key {} for this month has not been paid: ask an admin to run `sealctl account credit {} AMOUNT`",
            owing.key, owing.account
        );
        Err(Error::new(Code::KeyFeeUnpaid, text))
    }
}
