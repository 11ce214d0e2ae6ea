//! `GET /v1/accounts` and `/v1/accounts/{account}`.

use crate::audit::Caller;
use crate::catalogue::accounts::{self, AccountRow};
use crate::catalogue::{Page, meta};
use crate::context::Kms;
use crate::context::find::not_found;
use crate::error::Result;
use sealblk_api::{Account, AccountList};

/// Whether the caller sees all accounts. Others see their own.
pub(crate) fn sees_all(caller: &Caller) -> bool {
    caller.account == meta::OWNER
}

/// A page of the accounts that the caller sees.
pub(crate) async fn list(kms: &Kms, caller: &Caller, page: &Page) -> Result<AccountList> {
    let only = (!sees_all(caller)).then_some(caller.account.as_str());
    let mut db = kms.catalogue.read().await?;
    let (rows, next) = accounts::list(&mut db, only, page).await?;
    Ok(AccountList {
        accounts: rows.into_iter().map(Account::from).collect(),
        next,
    })
}

/// One account.
pub(crate) async fn show(kms: &Kms, caller: &Caller, wanted: &str) -> Result<Account> {
    let mut db = kms.catalogue.read().await?;
    let row = accounts::find(&mut db, wanted).await?;
    row.filter(|row| sees_all(caller) || row.id == caller.account)
        .map(Account::from)
        .ok_or_else(|| not_found("account", wanted))
}

impl From<AccountRow> for Account {
    fn from(row: AccountRow) -> Self {
        Account {
            name: row.id.clone(),
            id: row.id,
            balance: row.balance.unsigned_abs(),
            charged: row.charged.unsigned_abs(),
            activated: row.activated,
            granted: row.granted,
            created: row.created,
        }
    }
}
