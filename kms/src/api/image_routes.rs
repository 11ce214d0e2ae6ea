//! The calls on images.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};

use super::body;
use super::passing::Slot;
use super::request::{IfMatch, Kept, Nothing, Paging, Parameters, Wanted, change, ok, run_body, tag, tagged};
use super::types;
use crate::audit::Caller;
use crate::error::{Error, Result};
use crate::operation::chosen_file::Chosen;
use crate::operation::image_copy::CopyImage;
use crate::operation::image_delete::DeleteImage;
use crate::operation::image_export::{CancelExport, ExportImage};
use crate::operation::image_import::ImportImage;
use crate::operation::image_set::SetImage;
use crate::operation::image_share::{ShareImage, UnshareImage};
use crate::operation::matching::Tagged;
use crate::operation::{Kms, image_show, run};

/// Their routes.
pub(super) fn router() -> Router<Arc<Kms>> {
    Router::new()
        .route("/v1/images", get(list).post(create))
        .route("/v1/images/{image}", get(show).patch(set).delete(delete))
        .route("/v1/images/{image}/share", post(share))
        .route("/v1/images/{image}/unshare", post(unshare))
        .route("/v1/images/{image}/copy", post(copy))
        .route("/v1/images/{image}/export", post(export))
        .route("/v1/images/{image}/export/cancel", post(cancel_export))
        .route("/v1/imports/images", post(import))
}

/// `?lineage=…` besides.
struct OfLineage(Option<String>, Paging);

impl<S: Send + Sync> FromRequestParts<S> for OfLineage {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let mut parameters = Parameters::of(parts, state).await?;
        let lineage = parameters.0.remove("lineage");
        Ok(OfLineage(lineage, parameters.paging()?))
    }
}

async fn list(State(kms): Kept, caller: Caller, OfLineage(lineage, paging): OfLineage) -> Result<Response> {
    let page = paging.into();
    Ok(ok(
        &image_show::list(&kms, &caller, lineage.as_deref(), &page).await?
    ))
}

async fn show(State(kms): Kept, caller: Caller, wanted: Wanted) -> Result<Response> {
    let tag = tag(&kms, &caller, Tagged::Image, &wanted.0).await?;
    Ok(tagged(&tag, &image_show::show(&kms, &caller, &wanted.0).await?))
}

async fn create(State(kms): Kept, caller: Caller, request: Request<Body>) -> Result<Response> {
    run_body::<types::CreateImage>(&kms, caller, request).await
}

async fn set(
    State(kms): Kept,
    caller: Caller,
    tags: IfMatch,
    Wanted(image): Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    change(&kms, caller, tags, SetImage { image, options }).await
}

async fn share(
    State(kms): Kept,
    caller: Caller,
    Wanted(image): Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    Ok(ok(&run(&kms, caller, ShareImage { image, options }).await?))
}

async fn unshare(
    State(kms): Kept,
    caller: Caller,
    Wanted(image): Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    Ok(ok(&run(&kms, caller, UnshareImage { image, options }).await?))
}

async fn copy(
    State(kms): Kept,
    caller: Caller,
    Wanted(image): Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let options = body::read(request).await?;
    let copied = run(&kms, caller, CopyImage { image, options }).await?;
    Ok(body::json(StatusCode::CREATED, &copied))
}

async fn export(
    State(kms): Kept,
    caller: Caller,
    Wanted(image): Wanted,
    came: Slot,
    request: Request<Body>,
) -> Result<Response> {
    let options: types::ExportImage = body::read(request).await?;
    let to = Chosen::new(&options.path, options.descriptor, &came)?;
    let begun = run(&kms, caller, ExportImage::new(image, options, to)).await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn import(State(kms): Kept, caller: Caller, came: Slot, request: Request<Body>) -> Result<Response> {
    let wanted: types::ImportImage = body::read(request).await?;
    let from = Chosen::new(&wanted.file, wanted.descriptor, &came)?;
    let begun = run(&kms, caller, ImportImage::new(wanted, from)).await?;
    Ok(body::json(StatusCode::ACCEPTED, &begun))
}

async fn cancel_export(
    State(kms): Kept,
    caller: Caller,
    Wanted(image): Wanted,
    request: Request<Body>,
) -> Result<Response> {
    let Nothing {} = body::read(request).await?;
    Ok(ok(&run(&kms, caller, CancelExport { image }).await?))
}

async fn delete(State(kms): Kept, caller: Caller, tags: IfMatch, Wanted(image): Wanted) -> Result<Response> {
    change(&kms, caller, tags, DeleteImage { image }).await
}
