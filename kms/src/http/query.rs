//! The parameters of a request, as the list of calls has them.

use std::collections::HashMap;

use axum::extract;
use axum::http::Uri;
use sealblk_api::QemuVersion;
use sealblk_api::call::Spec;

use crate::catalogue::Page;
use crate::clock;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::views::usage;

/// The parameters in a request's query.
#[derive(Debug)]
pub(crate) struct Query {
    values: HashMap<String, String>,
    pub(crate) limit: u32,
    pub(crate) qemu_version: Option<QemuVersion>,
}

impl Query {
    /// The call's parameters, of the query; a call that has none does not look at the query.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`].
    pub(super) fn of(spec: &Spec, uri: &Uri) -> Result<Self> {
        let values = match spec.parameters {
            [] => HashMap::new(),
            _ => {
                let query = extract::Query::<HashMap<String, String>>::try_from_uri(uri);
                query
                    .map_err(|error| invalid(format!("the query cannot be understood: {error}")))?
                    .0
            }
        };
        let known = |name: &String| spec.parameters.iter().any(|parameter| parameter.name == name);
        if let Some(other) = values.keys().find(|name| !known(name)) {
            return Err(invalid(format!("there is no parameter {other:?}")));
        }
        let qemu_version = values.get("qemu_version").map(|text| text.parse());
        Ok(Query {
            limit: values
                .get("limit")
                .map_or(Ok(limits::PAGE_DEFAULT), |text| limit(text))?,
            qemu_version: qemu_version
                .transpose()
                .map_err(|error| invalid(format!("{error}")))?,
            values,
        })
    }

    /// The value of a parameter that is a text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Which page of a list.
    pub(crate) fn page(&self) -> Page {
        Page {
            after: self.text("after").unwrap_or_default().to_owned(),
            limit: self.limit,
        }
    }

    /// Whether deleted disks are asked for.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`].
    pub(crate) fn deleted(&self) -> Result<bool> {
        let deleted = self.text("deleted").unwrap_or("false").parse();
        deleted.map_err(|_| invalid("deleted is true or false".to_owned()))
    }

    /// For how many days a deleted disk can be restored, if that is said.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`].
    pub(crate) fn retention_days(&self) -> Result<Option<u16>> {
        let Some(text) = self.text("retention_days") else {
            return Ok(None);
        };
        match text.parse() {
            Ok(days) if days <= limits::RETENTION_DAYS_MOST => Ok(Some(days)),
            _ => {
                let text = format!(
                    "retention_days is a number from 0 to {}",
                    limits::RETENTION_DAYS_MOST
                );
                Err(invalid(text))
            }
        }
    }

    /// Which records of the audit log.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`].
    pub(crate) fn records(&self) -> Result<usage::Asked<'_>> {
        Ok(usage::Asked {
            after: self.after_record()?,
            limit: self.limit,
            disk: self.text("disk"),
            key: self.text("key"),
            instance: self.text("instance"),
            request: self.text("request"),
            since: self.time("since")?,
            until: self.time("until")?,
        })
    }

    /// A time, or a day, which begins at midnight in UTC.
    fn time(&self, name: &str) -> Result<Option<String>> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let time = clock::parse(text).or_else(|| clock::parse(&format!("{text}T00:00:00Z")));
        let why = || {
            invalid(format!(
                "{name} is a time as RFC 3339 has it, or its day: 2026-11-22T01:02:03Z"
            ))
        };
        time.map(clock::at).map(Some).ok_or_else(why)
    }

    /// The record that a page of the audit log follows.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`].
    pub(crate) fn after_record(&self) -> Result<u64> {
        let after = self.text("after").unwrap_or("0").parse();
        after.map_err(|_| invalid("after is the seq of a record".to_owned()))
    }
}

fn limit(text: &str) -> Result<u32> {
    match text.parse() {
        Ok(limit) if (1..=limits::PAGE_MOST).contains(&limit) => Ok(limit),
        _ => {
            let text = format!("limit is a number from 1 to {}", limits::PAGE_MOST);
            Err(invalid(text))
        }
    }
}

pub(super) fn invalid(why: String) -> Error {
    Error::new(Code::InvalidRequest, why)
}
