//! `POST /v1/accounts/{account}/credit` (rule M02).

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::{Write, accounts};
use crate::context::Kms;
use crate::context::find::not_found;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::views;
use crate::views::account::sees_all;
use sealblk_api::{self, Account};

/// Adds to an account's prepaid balance.
pub(crate) struct Credit {
    /// Id of the account.
    pub(crate) account: String,
    /// The call's body.
    pub(crate) options: sealblk_api::Credit,
}

impl Operation for Credit {
    const CALL: &'static str = "account.credit";
    type Decided = ();
    type Answer = Account;

    fn object(&self) -> &str {
        &self.account
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<()> {
        if !sees_all(caller) {
            let text = format!(
                "an admin of account {} cannot add to balances: ask an admin of account {}",
                caller.account,
                crate::catalogue::meta::OWNER
            );
            return Err(Error::new(Code::NotAuthorized, text));
        }
        let found = accounts::find(tx, &self.account).await?;
        let row = found.ok_or_else(|| not_found("account", &self.account))?;
        let amount = self.options.amount;
        let sum = row.balance.unsigned_abs().checked_add(amount);
        if amount == 0 || sum.is_none_or(|sum| sum > limits::BALANCE_MOST) {
            let text = format!(
                "{amount} micro-units: give at least 1, and a balance is at most {}",
                limits::BALANCE_MOST
            );
            return Err(Error::new(Code::InvalidAmount, text));
        }
        accounts::credit(tx, &self.account, amount.cast_signed()).await?;
        // What the keys owe is paid first (rule M03).
        kms.fees().collect(tx, &self.account).await
    }

    async fn act(&self, kms: &Kms, caller: &Caller, (): ()) -> Result<Account> {
        views::account::show(kms, caller, &self.account).await
    }
}
