//! `GET /v1/kms`.

use crate::audit::{self, Caller};
use crate::catalogue::keys::{self, KeyRow};
use crate::catalogue::{bin, meta};
use crate::context::{Kms, state_files};
use crate::error::{Code, Result};
use crate::profile::Gate;
use crate::rules::risks::Risks;
use crate::views::schedule;
use sealblk_api::{Bin, Condition, KmsSandbox, KmsStatus, LessConfined, Protection, Sandbox};

const KEYS_LEFT: &str = "wrapped keys that were deleted are still in the catalogue's log or in a copy of it (K14): end who reads the \
                         catalogue's file, such as a backup program; it is tried again each minute";

/// The state of the KMS for the caller's account.
pub(crate) async fn kms_status(kms: &Kms, caller: &Caller) -> Result<KmsStatus> {
    state_files::look(kms).await;
    let mut db = kms.catalogue.read().await?;
    let counts = meta::counts(&mut db, &caller.account).await?;
    let bin = bin::content(&mut db, &caller.account).await?;
    let (active, code, warning) = match kms.profile.gate {
        Gate::Activation => (
            meta::is_activated(&mut db, &caller.account).await?,
            Code::KmsNotActivated,
            "not activated: encrypted disks cannot be created before `kms activate` (K01)",
        ),
        Gate::Grant => (
            meta::is_granted(&mut db, &caller.account).await?,
            Code::KmsNotGranted,
            "not granted: encrypted disks cannot be created or attached before `kms grant` (K02); what is attached goes on, and \
             cannot be attached again once it is detached (A06)",
        ),
    };
    let condition = |code: &str, message: String| Condition {
        code: code.to_owned(),
        message,
        since: None,
    };
    let mut conditions = Vec::new();
    if !active {
        conditions.push(condition(code.name(), warning.to_owned()));
    }
    for key in keys::at_risk(&mut db, &caller.account).await? {
        conditions.push(condition("KeyAtRisk", key_warning(&key, key.attached)));
    }
    let risks = Risks::of(kms, &mut db, &caller.account).await?;
    for (key, months) in risks.unpaid() {
        conditions.push(condition("KeyFeeUnpaid", fee_warning(key, months)));
    }
    for warning in schedule::warnings(&mut db, &caller.account).await? {
        conditions.push(condition("ScheduleFailed", warning));
    }
    conditions.extend(kms.machines.of_account(&caller.account).into_iter().map(|found| {
        let message = format!("{} (A03)", found.text);
        Condition {
            since: Some(found.since),
            ..condition("LocalDeviceFound", message)
        }
    }));
    if kms.catalogue.has_deleted_keys() {
        conditions.push(condition("DeletedKeysLeft", KEYS_LEFT.to_owned()));
    }
    conditions.extend(kms.conditions.all());
    let audit_sinks = match caller.account == meta::OWNER {
        true => kms.sinks.shown(audit::newest(&mut db).await?.seq),
        false => Vec::new(),
    };
    Ok(KmsStatus {
        id: kms.meta.catalogue.clone(),
        name: kms.meta.region.clone(),
        region: kms.meta.region.clone(),
        zone: kms.meta.zone.clone(),
        profile: kms.profile.name.to_owned(),
        account: caller.account.clone(),
        state: if active { "active" } else { "inactive" }.to_owned(),
        root_key: kms.root_provider.kind().name().to_owned(),
        root_key_note: kms.root_provider.kind().note().map(str::to_owned),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        disks: counts.disks.unsigned_abs(),
        attached: counts.attached.unsigned_abs(),
        instances: counts.instances.unsigned_abs(),
        bin: Some(Bin {
            disks: bin.disks.unsigned_abs(),
            allocated: bin.allocated.unsigned_abs(),
        }),
        sandbox: Some(sandbox(kms, &caller.account)),
        audit_sinks,
        warnings: conditions
            .iter()
            .map(|condition| condition.message.clone())
            .collect(),
        conditions,
    })
}

/// Nobody is asked here: each process has said what it has when it began, and one was started to try what can be had.
fn sandbox(kms: &Kms, account: &str) -> KmsSandbox {
    let untried = Err("it is being tried".to_owned());
    let now = kms.supervisor.sandbox().unwrap_or(&untried);
    let protections = now.as_deref().unwrap_or_default();
    let level = match now {
        Err(_) => "unknown",
        Ok(all) if all.iter().all(|protection| protection.cause.is_none()) => "full",
        Ok(_) => "partial",
    };
    let less = kms.supervisor.unconfined(account).into_iter();
    KmsSandbox {
        level: level.to_owned(),
        reason: now.as_ref().err().cloned(),
        required: kms.require_sandbox,
        protections: protections
            .iter()
            .map(|protection| Protection {
                name: protection.name.clone(),
                missing: protection.cause.clone(),
            })
            .collect(),
        less: less
            .filter(|(_, sandbox)| sandbox.is_less_than(now))
            .map(|(disk, sandbox)| LessConfined {
                disk,
                sandbox: Sandbox::from(sandbox),
            })
            .collect(),
    }
}

/// Rules A06 and M03.
fn fee_warning(key: &str, months: &str) -> String {
    format!(
        "the fee of key {key} has not been paid for {months}: until there is credit nothing new is done with it, and what is \
         attached cannot be attached again once it is detached (A06)"
    )
}

/// Rules A06 and K11.
fn key_warning(key: &KeyRow, attached: i64) -> String {
    let (id, name, state) = (&key.id, &key.name, key.state.name());
    let day = key
        .deletion
        .as_ref()
        .map(|day| format!(" and is destroyed on {day}"));
    let day = day.unwrap_or_default();
    match attached {
        0 => format!("key {name} ({id}) is {state}{day}: see `sealctl key resources {name}` (K11)"),
        disks => format!(
            "key {name} ({id}) is {state}{day}: once detached, {disks} attached disks cannot be attached again (A06)"
        ),
    }
}
