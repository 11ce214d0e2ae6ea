//! `sealctl usage`.

use clap::Args;
use sealblk_kms::api::types::{self, UsageRow};

use crate::client::{Client, route};
use crate::failure::Failure;
use crate::output::{Answer, Block, fixed, flexible};

/// Metered KMS calls of the account.
#[derive(Args, Debug)]
#[command(after_help = "\
Create, attach and detach of encrypted disks count as one call each (rule M01). Reads and writes never do.

Example:
  sealctl usage")]
pub(crate) struct Usage {}

impl Usage {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let usage: types::Usage = client.get(&route(&["usage"])).await?;
        let table = table(&usage.usage);
        Answer::new(&usage, vec![table])
    }
}

fn table(rows: &[UsageRow]) -> Block {
    let columns = [fixed("MONTH"), flexible("REGION"), fixed("KIND"), fixed("CALLS")];
    let row = |row: &UsageRow| {
        vec![
            row.month.clone(),
            row.region.clone(),
            row.kind.clone(),
            row.calls.to_string(),
        ]
    };
    Block::table(&columns, rows.iter().map(row))
}
