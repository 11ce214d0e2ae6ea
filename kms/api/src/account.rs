//! Accounts, and what they have used.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An account. Amounts are in micro-units.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// As the accounts file has it.
    pub id: String,
    /// Same as the id.
    pub name: String,
    /// What is left of the prepaid balance (rule M02).
    pub balance: u64,
    /// What was taken from it for metered calls.
    pub charged: u64,
    /// When it activated the KMS (rule K01).
    pub activated: Option<String>,
    /// When the disk service was granted the use of its keys (rule K02).
    pub granted: Option<String>,
    /// RFC 3339.
    pub created: String,
}

/// Accounts, a page.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountList {
    /// The accounts.
    pub accounts: Vec<Account>,
    /// Give as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Adds to an account's balance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credit {
    /// In micro-units.
    pub amount: u64,
}

/// Metered calls of the account (rule M01), by month.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// The account.
    pub id: String,
    /// The account.
    pub name: String,
    /// What is left of the prepaid balance, in micro-units (rule M02).
    #[serde(default)]
    pub balance: u64,
    /// One row a month, region and kind of call, newest month first.
    pub usage: Vec<UsageRow>,
}

/// Calls of one kind in one month.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UsageRow {
    /// Month, region and kind of call, with dots between.
    #[serde(default)]
    pub id: String,
    /// Same as the id.
    #[serde(default)]
    pub name: String,
    /// `2026-11`
    pub month: String,
    /// Region.
    pub region: String,
    /// `create`, `attach`, `detach`, `snapshot`, `rollback`, `reinit`.
    pub kind: String,
    /// How many.
    pub calls: u64,
    /// What was taken from the balance for them, in micro-units.
    #[serde(default)]
    pub charged: u64,
}
