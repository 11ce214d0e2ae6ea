//! `GET /v1/kms`.

use super::Kms;
use crate::api::types::KmsStatus;
use crate::audit::Caller;
use crate::catalogue::meta;
use crate::error::Result;
use crate::profile::Gate;

/// The state of the KMS for the caller's account.
pub(crate) async fn kms_status(kms: &Kms, caller: &Caller) -> Result<KmsStatus> {
    let mut db = kms.catalogue.read().await?;
    let counts = meta::counts(&mut db, &caller.account).await?;
    let (active, warning) = match kms.profile.gate {
        Gate::Activation => (
            meta::is_activated(&mut db, &caller.account).await?,
            "not activated: encrypted disks cannot be created before `kms activate` (K01)",
        ),
        Gate::Grant => (
            meta::is_granted(&mut db, &caller.account).await?,
            "not granted: encrypted disks cannot be created or attached before `kms grant` (K02)",
        ),
    };
    let mut warnings = Vec::new();
    if !active {
        warnings.push(warning.to_owned());
    }
    Ok(KmsStatus {
        id: kms.meta.catalogue.clone(),
        name: kms.meta.region.clone(),
        region: kms.meta.region.clone(),
        zone: kms.meta.zone.clone(),
        profile: kms.profile.name.to_owned(),
        account: caller.account.clone(),
        state: if active { "active" } else { "inactive" }.to_owned(),
        root_key: "file".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        disks: counts.disks.unsigned_abs(),
        attached: counts.attached.unsigned_abs(),
        instances: counts.instances.unsigned_abs(),
        warnings,
    })
}
