//! The way of every call from its request to its answer, as the list of calls declares it.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use sealblk_api::call::{self, Call};
use serde::Serialize;

use super::admission::check_role;
use super::body;
use super::query::{Query, invalid};
use crate::audit::{Caller, details};
use crate::calls::idempotency::{self, Creates, Token};
use crate::calls::preconditions::{Matching, Tagged, Tags};
use crate::calls::{Operation, run};
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::host::received::Slot;

/// What the daemon does for a call: [`reads`], [`runs`] and [`creates`] write it.
pub(crate) trait Handle: Call + Sized {
    fn handle(context: Context, asked: Asked<Self>) -> impl Future<Output = Result<Response>> + Send;
}

/// The caller of a call, the KMS, and what came with the request.
pub(crate) struct Context {
    pub(crate) kms: Arc<Kms>,
    pub(crate) caller: Caller,
    headers: HeaderMap,
    bytes: Bytes,
}

/// What is asked for.
pub(crate) struct Asked<C: Call> {
    /// Id or name in the path; empty if there is none.
    pub(crate) object: String,
    pub(crate) query: Query,
    pub(crate) body: C::Body,
    /// The open file that has come with the request.
    pub(crate) passed: Slot,
}

/// Calls that read: `Call: |context, asked| FUTURE;`, which gives the call's answer.
macro_rules! reads {
    ($($call:ident: |$context:pat_param, $asked:pat_param| $answer:expr;)*) => {$(
        impl $crate::http::handler::Handle for sealblk_api::calls::$call {
            async fn handle(
                context: $crate::http::handler::Context,
                asked: $crate::http::handler::Asked<Self>,
            ) -> $crate::error::Result<axum::response::Response> {
                const {
                    assert!(
                        <Self as sealblk_api::call::Call>::SPEC.audit.is_none(),
                        "what is recorded is run, so that its outcome is recorded, too"
                    )
                };
                let ($context, $asked) = (&context, &asked);
                Ok($crate::http::handler::reply::<Self>(&$answer.await?))
            }
        }
    )*};
}

/// Calls that are carried out by an operation: `Call: |asked| OPERATION;`.
macro_rules! runs {
    ($($call:ident: |$asked:pat_param| $operation:expr;)*) => {$(
        impl $crate::http::handler::Handle for sealblk_api::calls::$call {
            async fn handle(
                context: $crate::http::handler::Context,
                $asked: $crate::http::handler::Asked<Self>,
            ) -> $crate::error::Result<axum::response::Response> {
                let operation = $operation;
                $crate::http::handler::carry_out::<Self, _>(context, operation).await
            }
        }
    )*};
}

/// Calls that create something, whose bodies are the operations.
macro_rules! creates {
    ($($call:ident,)*) => {$(
        impl $crate::http::handler::Handle for sealblk_api::calls::$call {
            async fn handle(
                context: $crate::http::handler::Context,
                asked: $crate::http::handler::Asked<Self>,
            ) -> $crate::error::Result<axum::response::Response> {
                $crate::http::handler::create::<Self>(context, asked.body).await
            }
        }
    )*};
}

pub(crate) use {creates, reads, runs};

/// Serves a call.
pub(super) async fn serve<C: Handle>(
    State(kms): State<Arc<Kms>>,
    request: Request<Body>,
) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| Error::new(Code::Internal, "the caller is not known"))?;
    check_role(&kms, &caller, &parts.method, &C::SPEC).await?;
    let object = object::<C>(&mut parts, &kms).await?;
    let query = Query::of(&C::SPEC, &parts.uri)?;
    let bytes = match C::SPEC.method.has_body() {
        true => body::bytes(&parts.headers, body).await?,
        false => body::NOTHING,
    };
    // Read before the object: then it is never newer.
    let tag = match C::SPEC.tags {
        call::Tags::Given => Some(tag::<C>(&kms, &caller, &object).await?),
        _ => None,
    };
    let body: C::Body = body::parse(&bytes)?;
    let said = serde_json::to_value(&body).ok().zip(body::parse(&bytes).ok());
    let said = said.and_then(|(said, sent)| details::asked(said, &sent, C::SPEC.hidden));
    caller.facts.note_if(details::ASKED, said);
    let asked = Asked {
        object,
        query,
        body,
        passed: parts.extensions.get::<Slot>().cloned().unwrap_or_default(),
    };
    let context = Context {
        kms,
        caller,
        headers: parts.headers,
        bytes,
    };
    let mut response = C::handle(context, asked).await?;
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

async fn object<C: Call>(parts: &mut Parts, kms: &Arc<Kms>) -> Result<String> {
    if C::SPEC.object().is_none() {
        return Ok(String::new());
    }
    let path = Path::<String>::from_request_parts(parts, kms).await;
    let Path(object) = path.map_err(|error| invalid(format!("the path cannot be understood: {error}")))?;
    Ok(object)
}

async fn tag<C: Call>(kms: &Kms, caller: &Caller, object: &str) -> Result<String> {
    let mut db = kms.catalogue.read().await?;
    tagged::<C>()?.tag(&mut db, caller, object).await
}

/// The kind of the object in a call's path.
fn tagged<C: Call>() -> Result<Tagged> {
    let kind = C::SPEC.object().and_then(Tagged::named);
    kind.ok_or_else(|| Error::new(Code::Internal, "the object has no tags"))
}

/// The answer of a call.
pub(crate) fn reply<C: Call>(answer: &C::Answer) -> Response {
    respond::<C>(answer)
}

fn respond<C: Call>(answer: &impl Serialize) -> Response {
    let status = StatusCode::from_u16(C::SPEC.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    body::json(status, answer)
}

/// Runs a call's operation, where the object is as `If-Match` says.
pub(crate) async fn carry_out<C: Call, O>(context: Context, operation: O) -> Result<Response>
where
    O: Operation<Answer = C::Answer>,
{
    const {
        assert!(
            is_audited_as(&C::SPEC, O::CALL),
            "the list of calls has another name for it"
        )
    };
    let Context {
        kms, caller, headers, ..
    } = context;
    let tags = match C::SPEC.tags {
        call::Tags::Matched => one_header(&headers, "if-match")?,
        _ => None,
    };
    let Some(tags) = tags else {
        return Ok(reply::<C>(&run(&kms, caller, operation).await?));
    };
    let matching = Matching {
        kind: tagged::<C>()?,
        tags: Tags::parse(&tags)?,
        operation,
    };
    Ok(reply::<C>(&run(&kms, caller, matching).await?))
}

/// Runs the call that its body is, once for each `Idempotency-Key`.
pub(crate) async fn create<C: Call>(context: Context, operation: C::Body) -> Result<Response>
where
    C::Body: Creates + Operation<Answer = C::Answer>,
{
    const { assert!(C::SPEC.idempotent, "the list of calls does not say so") };
    let Some(key) = one_header(&context.headers, "idempotency-key")? else {
        return carry_out::<C, _>(context, operation).await;
    };
    let token = Token::new(&key, C::Body::CALL, &body::parse(&context.bytes)?)?;
    let answer = idempotency::run(&context.kms, context.caller, operation, token).await?;
    Ok(respond::<C>(&answer))
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

/// Whether an operation has the name in the audit log that the list of calls says.
const fn is_audited_as(spec: &call::Spec, name: &str) -> bool {
    let Some(listed) = spec.audit else {
        return false;
    };
    let (listed, name) = (listed.as_bytes(), name.as_bytes());
    let mut at = 0;
    while at < listed.len() && at < name.len() && listed[at] == name[at] {
        at += 1;
    }
    at == listed.len() && at == name.len()
}
