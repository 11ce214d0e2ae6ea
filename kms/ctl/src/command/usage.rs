//! `sealctl usage`.

use clap::Args;
use sealblk_api::client::{Client, route};
use sealblk_api::{self as api, UsageRow};

use crate::failure::Failure;
use crate::output::{Answer, Block, Column, fixed, flexible};

/// Metered KMS calls of the account, and its balance.
#[derive(Args, Debug)]
#[command(after_help = "\
Create, attach, detach, snapshot, rollback and (by profile) reinit of encrypted disks count as one call each (rule M01). \
Reads and writes never do. Amounts are micro-units (rule M02).

Example:
  sealctl usage")]
pub(crate) struct Usage {}

impl Usage {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let usage: api::Usage = client.get(&route(&["usage"])).await?;
        let table = Block::table(&usage.usage, COLUMNS);
        let balance = Block::Line(format!("balance: {} micro-units", usage.balance));
        Answer::new(&usage, vec![table, balance])
    }
}

const COLUMNS: &[Column<UsageRow>] = &[
    fixed("MONTH", |row| row.month.clone()),
    flexible("REGION", |row| row.region.clone()),
    fixed("KIND", |row| row.kind.clone()),
    fixed("CALLS", |row| row.calls.to_string()),
    fixed("CHARGED", |row| row.charged.to_string()),
];
