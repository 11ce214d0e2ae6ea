//! `sealctl audit`.

use std::num::NonZeroUsize;

use clap::Args;
use sealblk_kms::api::types::{AuditPage, AuditRecord};

use crate::client::{Client, Page, route};
use crate::failure::Failure;
use crate::output::{Answer, Block, fixed, flexible, or_dash};

/// Records of the audit log, oldest first.
#[derive(Args, Debug)]
#[command(after_help = "\
Every decision of the KMS is here, allowed, refused or failed (rule M04). Each record's hash covers the \
record before it; the hashes are shown with -o json.

Examples:
  sealctl audit --limit 20
  sealctl -o json audit --after 1200")]
pub(crate) struct Audit {
    /// Only the newest N records.
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Only records after this position.
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    after: u64,
}

impl Audit {
    pub(crate) async fn run(self, client: &mut Client) -> Result<Answer, Failure> {
        let path = route(&["audit"]);
        let mut page: AuditPage = client.page_after(&path, &self.after.to_string()).await?;
        while let Some(after) = page.next() {
            let following = client.page_after(&path, &after).await?;
            page.append(following);
            self.keep_newest(&mut page.audit);
        }
        self.keep_newest(&mut page.audit);
        let table = table(&page.audit);
        Answer::new(&page, vec![table])
    }

    /// Drops what is beyond the limit, so that a long log does not have to fit into memory.
    fn keep_newest(&self, records: &mut Vec<AuditRecord>) {
        let limit = self.limit.map_or(usize::MAX, NonZeroUsize::get);
        records.drain(..records.len().saturating_sub(limit));
    }
}

fn table(records: &[AuditRecord]) -> Block {
    let columns = [
        fixed("SEQ"),
        fixed("TIME"),
        fixed("UID"),
        flexible("CALL"),
        flexible("OBJECT"),
        fixed("DECISION"),
        flexible("REASON"),
    ];
    let row = |record: &AuditRecord| {
        vec![
            record.seq.to_string(),
            record.time.clone(),
            record.uid.to_string(),
            record.call.clone(),
            record.object.clone(),
            record.decision.clone(),
            reason(record),
        ]
    };
    Block::table(&columns, records.iter().map(row))
}

/// `LocalStorage (A03)`, or `-`.
fn reason(record: &AuditRecord) -> String {
    let rule = record.rule.as_ref().map(|rule| format!(" ({rule})"));
    or_dash(&record.code) + &rule.unwrap_or_default()
}
