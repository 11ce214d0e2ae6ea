//! What a service is started with, from the catalogue.

use sqlx::SqliteConnection;

use crate::catalogue::services::{self, ServiceRow};
use crate::catalogue::{attachments, disks, volumes};
use crate::context::{Kms, plans};
use crate::error::{Code, Error, Result};
use crate::host::backends::{Plan, SessionPlan, by_name};

/// The plan of the service of a disk, with all its attachments.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn of_disk(kms: &Kms, disk: &str) -> Result<Plan> {
    let mut db = kms.catalogue.read().await?;
    let service = services::of_disk(&mut db, disk).await?;
    let service = service.ok_or_else(|| Error::new(Code::Internal, format!("{disk} is not attached")))?;
    of(kms, &mut db, &service).await
}

/// The plan of a service.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn of(kms: &Kms, db: &mut SqliteConnection, service: &ServiceRow) -> Result<Plan> {
    let disk = disks::get(db, &service.disk).await?;
    let attachments = attachments::of_disk(db, &service.disk).await?;
    let bases = volumes::bases(db, &service.disk).await?;
    Ok(plans::of_service(
        &kms.state,
        &disk,
        &bases,
        service,
        &attachments,
    ))
}

/// Has sockets be found by the names that a disk and its instances have now; where that is not possible, the log says so.
pub(crate) async fn name_sockets(kms: &Kms, disk: &str) {
    match of_disk(kms, disk).await {
        Ok(plan) => plan.sessions.iter().for_each(by_name::link),
        Err(error) => log::warn!("{disk}: its sockets have no new names: {}", error.full_message()),
    }
}

/// The session of an attachment in a plan.
///
/// # Errors
/// [`Code::Internal`], if it is missing.
pub(crate) fn session<'p>(plan: &'p Plan, attachment: &str) -> Result<&'p SessionPlan> {
    plan.session(attachment)
        .ok_or_else(|| Error::new(Code::Internal, format!("attachment {attachment} is missing")))
}
