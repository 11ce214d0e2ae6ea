//! `sealctl usage`.

use clap::Args;
use sealblk_api::client::{Client, route};
use sealblk_api::{self as api, UsageRow};

use crate::failure::Failure;
use crate::output::{Answer, Block, fixed, flexible};

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
        let table = table(&usage.usage);
        let balance = Block::Line(format!("balance: {} micro-units", usage.balance));
        Answer::new(&usage, vec![table, balance])
    }
}

fn table(rows: &[UsageRow]) -> Block {
    let columns = [
        fixed("MONTH"),
        flexible("REGION"),
        fixed("KIND"),
        fixed("CALLS"),
        fixed("CHARGED"),
    ];
    let row = |row: &UsageRow| {
        vec![
            row.month.clone(),
            row.region.clone(),
            row.kind.clone(),
            row.calls.to_string(),
            row.charged.to_string(),
        ]
    };
    Block::table(&columns, rows.iter().map(row))
}
