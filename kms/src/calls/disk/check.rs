//! `POST /v1/disks/{disk}/check`.

use sealblk_proto::message::CheckReport;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::disks::DiskRow;
use crate::catalogue::intents::{IntentRow, Work};
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::intents::{Subject, check};
use crate::rules::available::check_workable;
use crate::volumes::commands;
use sealblk_api::{self, DiskCheck};

/// Examines all metadata of a disk's store, and repairs what can be derived from the rest if that is asked for.
pub(crate) struct Check {
    /// Id or name.
    pub(crate) disk: String,
    /// The call's body.
    pub(crate) options: sealblk_api::Check,
}

impl Operation for Check {
    const CALL: &'static str = "disk.check";
    type Decided = (IntentRow, DiskRow);
    type Answer = DiskCheck;

    fn object(&self) -> &str {
        &self.disk
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<(IntentRow, DiskRow)> {
        let disk = find::disk(tx, caller, &self.disk).await?;
        check_workable(tx, &disk, "metadata").await?;
        if self.options.repair && disk.attachment.is_some() {
            let text = format!(
                "disk {} is attached, and is repaired only when it is not: detach it first",
                disk.name
            );
            return Err(Error::new(Code::DiskAttached, text));
        }
        let intent = kms
            .open_intent(tx, caller, Work::Check, Subject::disk(&disk))
            .await?;
        Ok((intent, disk))
    }

    async fn act(&self, kms: &Kms, _: &Caller, (intent, disk): (IntentRow, DiskRow)) -> Result<DiskCheck> {
        let checked = commands::check(kms, &intent.disk, self.options.repair).await;
        check::close(kms, &intent).await?;
        Ok(answer(disk, checked?))
    }
}

fn answer(disk: DiskRow, report: CheckReport) -> DiskCheck {
    let found = report.leaked + report.double_used + report.bad_pages;
    DiskCheck {
        id: disk.id,
        name: disk.name,
        clean: found == 0 && report.findings.is_empty(),
        pages: report.pages,
        leaked: report.leaked,
        double_used: report.double_used,
        bad_pages: report.bad_pages,
        repaired: report.repaired,
        findings: report.findings,
    }
}
