//! `sealctl account`.

use clap::Subcommand;
use sealblk_api::client::{Client, Patience, route};
use sealblk_api::{self as api, AccountList, Credit};

use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible, or_dash};
use crate::values::object;

/// Accounts and their prepaid balances.
#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// List accounts: yours, or all if yours is `default`.
    #[command(after_help = "Example:\n  sealctl account list")]
    List,
    /// Show one account.
    #[command(after_help = "Example:\n  sealctl -o json account show default")]
    Show {
        /// Id of the account.
        #[arg(value_parser = object)]
        account: String,
    },
    /// Add to an account's balance (rule M02). Only admins of the account `default` may.
    #[command(after_help = "Example:\n  sealctl account credit acme 5000000")]
    Credit {
        /// Id of the account.
        #[arg(value_parser = object)]
        account: String,
        /// In micro-units, millionths of the unit in which balances are kept.
        amount: u64,
    },
}

impl Account {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let account: api::Account = match self {
            Account::List => {
                let list: AccountList = client.list(&route(&["accounts"])).await?;
                return Answer::new(&list, vec![Block::table(&list.accounts, COLUMNS)]);
            }
            Account::Show { account } => client.get(&route(&["accounts", &account])).await?,
            Account::Credit { account, amount } => {
                let path = route(&["accounts", &account, "credit"]);
                client.post(&path, &Credit { amount }, Patience::Change).await?
            }
        };
        Answer::new(&account, vec![fields(&account)])
    }
}

const COLUMNS: &[Column<api::Account>] = &[
    flexible("ID", |account| account.id.clone()),
    fixed("BALANCE", |account| account.balance.to_string()),
    fixed("CHARGED", |account| account.charged.to_string()),
    fixed("ACTIVATED", |account| or_dash(&account.activated)),
];

fn fields(account: &api::Account) -> Block {
    Block::Fields(vec![
        ("id", account.id.clone()),
        ("balance", format!("{} micro-units", account.balance)),
        ("charged", format!("{} micro-units", account.charged)),
        ("activated", or_dash(&account.activated)),
        ("granted", or_dash(&account.granted)),
        ("created", account.created.clone()),
    ])
}
