//! The process that copies: what it is told, and how far it has come.

use sealblk_proto::message::{Command, CopyProgress, Mode, Outcome};

use crate::catalogue::volumes;
use crate::context::{Kms, plans};
use crate::error::{Code, Error, Result};
use crate::host::backends::maintenance::Maintenance;
use crate::host::backends::{Plan, SourcePlan};
use crate::limits;
use crate::volumes::commands;

/// The plan of a process that copies one volume to another.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn plan_between(kms: &Kms, source: &str, destination: &str, mode: Mode) -> Result<Plan> {
    plan_to(kms, source_plan(kms, source).await?, destination, mode).await
}

/// The plan of a process that copies to a volume.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn plan_to(kms: &Kms, source: SourcePlan, destination: &str, mode: Mode) -> Result<Plan> {
    let plan = commands::plan(kms, destination, mode).await?;
    let mut db = kms.catalogue.read().await?;
    let lineage = volumes::get(&mut db, destination).await?.lineage;
    Ok(plan.copying(lineage, source))
}

/// A volume as what is copied.
///
/// # Errors
/// The catalogue's.
pub(crate) async fn source_plan(kms: &Kms, volume: &str) -> Result<SourcePlan> {
    let mut db = kms.catalogue.read().await?;
    let row = volumes::get(&mut db, volume).await?;
    let bases = volumes::bases(&mut db, volume).await?;
    Ok(plans::source(&kms.state, &row, &bases))
}

/// How far a process has come.
///
/// # Errors
/// [`Code::BackendFailed`] if it does not answer.
pub(crate) async fn progress(process: &Maintenance<'_>) -> Result<CopyProgress> {
    match process.request(Command::Progress, limits::BACKEND_TIME).await {
        Ok(Outcome::Progress(progress)) => Ok(progress),
        Ok(_) => {
            let text = "the copy's process answers otherwise";
            Err(Error::new(Code::BackendFailed, text))
        }
        Err(error) => {
            let text = "the copy's process failed";
            Err(Error::because(Code::BackendFailed, text, error))
        }
    }
}
