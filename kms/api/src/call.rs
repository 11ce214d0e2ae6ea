//! What is to be said of a call of the API.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Role;
use crate::parameter::{AFTER, LIMIT, Parameter, QEMU_VERSION};

/// A call of the API: what goes in, what comes out, and the rest of its declaration.
pub trait Call: Send + Sync + 'static {
    /// The request's body.
    type Body: Serialize + DeserializeOwned + ToSchema + Send;
    /// The body of an answer that is no refusal.
    type Answer: Serialize + DeserializeOwned + ToSchema + Send + Sync;
    /// The rest.
    const SPEC: Spec;
}

/// The body of a call that takes nothing, which can be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Methods of HTTP that calls have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Creates, or does something.
    Post,
    /// Changes some fields.
    Patch,
    /// Deletes.
    Delete,
}

impl Method {
    /// As HTTP has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }

    /// Whether requests have a body.
    #[must_use]
    pub const fn has_body(self) -> bool {
        matches!(self, Method::Post | Method::Patch)
    }
}

/// What a call has to do with the tags of objects (`ETag`, RFC 9110, 8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// Nothing.
    None,
    /// The answer has the object's tag.
    Given,
    /// The call can be made to depend on the tag (`If-Match`).
    Matched,
}

/// What is said of a call besides the types of its body and answer.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Of HTTP.
    pub method: Method,
    /// Of the URL; one segment at most is a parameter, such as `{disk}`.
    pub path: &'static str,
    /// What it does: a sentence without its full stop.
    pub does: &'static str,
    /// Numbers of the rules behind it.
    pub rules: &'static [&'static str],
    /// Of which the caller needs one.
    pub roles: &'static [Role],
    /// HTTP status of an answer that is no refusal.
    pub status: u16,
    /// In the query; none of them need be given.
    pub parameters: &'static [Parameter],
    /// What the call has to do with objects' tags.
    pub tags: Tags,
    /// Whether the call takes the header `Idempotency-Key`.
    pub idempotent: bool,
    /// The name in the audit log, of a call that is recorded: those that read are not, unless they are refused.
    pub audit: Option<&'static str>,
    /// Fields of the body that the audit log does not have.
    pub hidden: &'static [&'static str],
    /// As what it counts for an encrypted disk (rule M01), if it does.
    pub meter: Option<&'static str>,
}

const READERS: &[Role] = &Role::ALL;
const OPERATORS: &[Role] = &[Role::Operator, Role::Admin];

const fn spec(method: Method, path: &'static str, does: &'static str) -> Spec {
    Spec {
        method,
        path,
        does,
        rules: &[],
        roles: match method {
            Method::Get => READERS,
            _ => OPERATORS,
        },
        status: 200,
        parameters: &[],
        tags: Tags::None,
        idempotent: false,
        audit: None,
        hidden: &[],
        meter: None,
    }
}

/// A call that reads, which any role may.
pub(crate) const fn get(path: &'static str, does: &'static str) -> Spec {
    spec(Method::Get, path, does)
}

/// A call that does something, which operators and admins may; by this name in the audit log.
pub(crate) const fn post(path: &'static str, does: &'static str, audit: &'static str) -> Spec {
    spec(Method::Post, path, does).audited(audit)
}

/// A call that changes an object with a tag; otherwise as [`post`].
pub(crate) const fn patch(path: &'static str, does: &'static str, audit: &'static str) -> Spec {
    let spec = spec(Method::Patch, path, does).audited(audit);
    Spec {
        tags: Tags::Matched,
        ..spec
    }
}

/// A call that deletes an object; otherwise as [`post`].
pub(crate) const fn delete(path: &'static str, does: &'static str, audit: &'static str) -> Spec {
    spec(Method::Delete, path, does).audited(audit)
}

impl Spec {
    const fn audited(self, audit: &'static str) -> Self {
        Spec {
            audit: Some(audit),
            ..self
        }
    }

    /// For a body with fields that nobody else may see.
    pub(crate) const fn hides(self, hidden: &'static [&'static str]) -> Self {
        Spec { hidden, ..self }
    }

    pub(crate) const fn rules(self, rules: &'static [&'static str]) -> Self {
        Spec { rules, ..self }
    }

    pub(crate) const fn by(self, roles: &'static [Role]) -> Self {
        Spec { roles, ..self }
    }

    /// For a call that creates an object.
    pub(crate) const fn creates(self) -> Self {
        Spec { status: 201, ..self }
    }

    /// For a call that begins what takes long.
    pub(crate) const fn begins(self) -> Self {
        Spec { status: 202, ..self }
    }

    pub(crate) const fn asks(self, parameters: &'static [Parameter]) -> Self {
        Spec { parameters, ..self }
    }

    /// A list that is given in pages.
    pub(crate) const fn paged(self) -> Self {
        self.asks(&[AFTER, LIMIT])
    }

    /// A list, given in pages, with arguments for QEMU in it.
    pub(crate) const fn paged_for_qemu(self) -> Self {
        self.asks(&[AFTER, LIMIT, QEMU_VERSION])
    }

    /// The answer has arguments for QEMU in it.
    pub(crate) const fn for_qemu(self) -> Self {
        self.asks(&[QEMU_VERSION])
    }

    /// The answer has the object's tag.
    pub(crate) const fn tagged(self) -> Self {
        Spec {
            tags: Tags::Given,
            ..self
        }
    }

    /// For a call that can be made to depend on the object's tag.
    pub(crate) const fn matched(self) -> Self {
        Spec {
            tags: Tags::Matched,
            ..self
        }
    }

    pub(crate) const fn idempotent(self) -> Self {
        Spec {
            idempotent: true,
            ..self
        }
    }

    pub(crate) const fn metered(self, meter: &'static str) -> Self {
        Spec {
            meter: Some(meter),
            ..self
        }
    }

    /// The path's segments after the version.
    pub fn segments(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.path.split('/').skip(2)
    }

    /// Name of the object in the path, such as `disk`.
    #[must_use]
    pub fn object(&self) -> Option<&'static str> {
        self.segments()
            .find_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// What it does, and the rules behind it.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.rules {
            [] => self.does.to_owned(),
            [rule] => format!("{} (rule {rule})", self.does),
            rules => format!("{} (rules {})", self.does, rules.join(", ")),
        }
    }
}
