//! `POST /v1/snapshots/{snapshot}/copy` (rule S06). A KMS serves one region and knows no other's, so every copy is
//! refused, each for its own reason.

use std::convert::Infallible;

use crate::audit::Caller;
use crate::calls::Operation;
use crate::catalogue::Write;
use crate::catalogue::snapshots::SnapshotRow;
use crate::context::{Kms, find};
use crate::error::{Code, Error, Result};
use crate::id;
use crate::profile::Profile;
use crate::rules::region;
use sealblk_api::{self, Snapshot};

/// Copies a snapshot to a region.
pub(crate) struct CopySnapshot {
    /// Id, name or `DISK/NAME`.
    pub(crate) snapshot: String,
    /// The call's body.
    pub(crate) options: sealblk_api::CopySnapshot,
}

impl Operation for CopySnapshot {
    const CALL: &'static str = "snapshot.copy";
    type Decided = Infallible;
    type Answer = Snapshot;

    fn object(&self) -> &str {
        &self.snapshot
    }

    async fn decide(&self, kms: &Kms, caller: &Caller, tx: &mut Write) -> Result<Infallible> {
        let row = find::snapshot(tx, caller, None, &self.snapshot).await?;
        id::check_name(&self.options.to_region)?;
        Err(refusal(
            kms.profile,
            &row,
            &kms.meta.region,
            &self.options.to_region,
        ))
    }

    async fn act(&self, _: &Kms, _: &Caller, decided: Infallible) -> Result<Snapshot> {
        match decided {}
    }
}

fn refusal(profile: &Profile, row: &SnapshotRow, own: &str, wanted: &str) -> Error {
    let stays = row.encrypted && !profile.copy_snapshot_across_regions;
    let here = format!(
        "make a disk from it (`sealctl disk create NAME --snapshot {}`)",
        row.id
    );
    let object = format!("snapshot {}", row.name);
    region::refusal(
        &object,
        stays.then_some(Code::EncryptedSnapshotStays),
        &here,
        own,
        wanted,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::states::SnapshotState;

    fn snapshot(encrypted: bool) -> SnapshotRow {
        SnapshotRow {
            id: "snap-1".into(),
            volume: "disk-1".into(),
            name: "one".into(),
            state: SnapshotState::Available,
            size: 512,
            created: String::new(),
            disk_name: None,
            encrypted,
            lineage: None,
            zone: "z1".into(),
            clones: 0,
            images: 0,
            held: false,
            schedule: None,
        }
    }

    #[test]
    fn rule_s06_is_a_switch_of_the_profile() {
        let ours = Profile::named("sealblk").unwrap();
        let lax = Profile {
            copy_snapshot_across_regions: true,
            ..*ours
        };
        let code = |profile, encrypted, wanted| {
            let code = refusal(profile, &snapshot(encrypted), "eu-1", wanted).code();
            (code, code.rule())
        };
        assert_eq!(
            code(ours, true, "eu-2"),
            (Code::EncryptedSnapshotStays, Some("S06"))
        );
        assert_eq!(code(&lax, true, "eu-2"), (Code::UnknownRegion, None));
        assert_eq!(code(ours, false, "eu-2"), (Code::UnknownRegion, None));
        assert_eq!(code(ours, true, "eu-1"), (Code::SameRegion, None));
    }
}
