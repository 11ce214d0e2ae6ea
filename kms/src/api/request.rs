//! What calls take from a request, and the ways in which they are run and answered.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body;
use super::passing::Slot;
use super::types::QemuVersion;
use crate::audit::Caller;
use crate::catalogue::Page;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::operation::matching::{Changes, Matching, Tagged, Tags};
use crate::operation::once::{self, Creates, Token};
use crate::operation::{Kms, run};

pub(super) type Kept = State<Arc<Kms>>;

/// The request's caller, as an argument of a handler.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Error::new(Code::Internal, "the caller is not known"))
    }
}

/// What came with a request besides its bytes, as an argument of a handler.
impl<S: Sync> FromRequestParts<S> for Slot {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        Ok(parts.extensions.get::<Slot>().cloned().unwrap_or_default())
    }
}

/// The one name or id in a path.
pub(super) struct Wanted(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(wanted) = path.map_err(|error| {
            Error::new(
                Code::InvalidRequest,
                format!("the path cannot be understood: {error}"),
            )
        })?;
        Ok(Wanted(wanted))
    }
}

/// The parameters of a request.
pub(super) struct Parameters(pub(super) HashMap<String, String>);

impl Parameters {
    pub(super) async fn of<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Self> {
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Query(parameters) =
            query.map_err(|error| invalid(format!("the query cannot be understood: {error}")))?;
        Ok(Parameters(parameters))
    }

    /// `after=…&limit=…`, and nothing else that has not been taken.
    pub(super) fn paging(mut self) -> Result<Paging> {
        let after = self.0.remove("after");
        let limit = match self.0.remove("limit") {
            None => limits::PAGE_DEFAULT,
            Some(text) => match text.parse() {
                Ok(limit) if (1..=limits::PAGE_MOST).contains(&limit) => limit,
                _ => {
                    return Err(invalid(format!(
                        "limit is a number from 1 to {}",
                        limits::PAGE_MOST
                    )));
                }
            },
        };
        self.end()?;
        Ok(Paging { after, limit })
    }

    /// `qemu_version=…`.
    fn qemu_version(&mut self) -> Result<Option<QemuVersion>> {
        let version = self.0.remove("qemu_version").map(|text| text.parse());
        version.transpose().map_err(|error| invalid(format!("{error}")))
    }

    /// Nothing is left.
    pub(super) fn end(self) -> Result<()> {
        match self.0.keys().next() {
            Some(other) => Err(invalid(format!("there is no parameter {other:?}"))),
            None => Ok(()),
        }
    }
}

pub(super) fn invalid(why: String) -> Error {
    Error::new(Code::InvalidRequest, why)
}

/// `?after=…&limit=…`, and nothing else.
pub(super) struct Paging {
    pub(super) after: Option<String>,
    pub(super) limit: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Parameters::of(parts, state).await?.paging()
    }
}

/// `?qemu_version=…`, and nothing else.
pub(super) struct ForQemu(pub(super) Option<QemuVersion>);

impl<S: Send + Sync> FromRequestParts<S> for ForQemu {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let mut parameters = Parameters::of(parts, state).await?;
        let version = parameters.qemu_version()?;
        parameters.end()?;
        Ok(ForQemu(version))
    }
}

/// `?qemu_version=…` besides.
pub(super) struct PagingForQemu(pub(super) Paging, pub(super) Option<QemuVersion>);

impl<S: Send + Sync> FromRequestParts<S> for PagingForQemu {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let mut parameters = Parameters::of(parts, state).await?;
        let version = parameters.qemu_version()?;
        Ok(PagingForQemu(parameters.paging()?, version))
    }
}

impl From<Paging> for Page {
    fn from(paging: Paging) -> Self {
        Page {
            after: paging.after.unwrap_or_default(),
            limit: paging.limit,
        }
    }
}

pub(super) fn ok<T: Serialize>(value: &T) -> Response {
    body::json(StatusCode::OK, value)
}

/// Parses the body and runs the call that it is, once for each `Idempotency-Key`.
pub(super) async fn run_body<O>(kms: &Arc<Kms>, caller: Caller, request: Request<Body>) -> Result<Response>
where
    O: Creates + DeserializeOwned,
    O::Answer: Serialize + Sync,
{
    let key = one_header(request.headers(), "idempotency-key")?;
    let bytes = body::bytes(request).await?;
    let operation: O = body::parse(&bytes)?;
    let Some(key) = key else {
        let answer = run(kms, caller, operation).await?;
        return Ok(body::json(StatusCode::CREATED, &answer));
    };
    let token = Token::new(&key, O::CALL, &body::parse(&bytes)?)?;
    let answer = once::run(kms, caller, operation, token).await?;
    Ok(body::json(StatusCode::CREATED, &answer))
}

/// Runs a call that changes an object, if the object is as `If-Match` says.
pub(super) async fn change<O>(kms: &Arc<Kms>, caller: Caller, tags: IfMatch, operation: O) -> Result<Response>
where
    O: Changes,
    O::Answer: Serialize,
{
    Ok(match tags.0 {
        None => ok(&run(kms, caller, operation).await?),
        Some(tags) => ok(&run(kms, caller, Matching { operation, tags }).await?),
    })
}

/// The value of a header that comes at most once.
fn one_header(headers: &HeaderMap, name: &'static str) -> Result<Option<String>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.to_owned())),
        _ => Err(invalid(format!(
            "give the header {name} once, in characters of ASCII"
        ))),
    }
}

/// The tags in `If-Match`.
pub(super) struct IfMatch(Option<Tags>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let header = one_header(&parts.headers, "if-match")?;
        Ok(IfMatch(header.as_deref().map(Tags::parse).transpose()?))
    }
}

/// An answer with the object's tag, which must have been read before the object: then it is never newer.
pub(super) fn tagged<T: Serialize>(tag: &str, value: &T) -> Response {
    let mut response = ok(value);
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

pub(super) async fn tag(kms: &Kms, caller: &Caller, kind: Tagged, wanted: &str) -> Result<String> {
    let mut db = kms.catalogue.read().await?;
    kind.tag(&mut db, caller, wanted).await
}

/// A body without fields.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}
