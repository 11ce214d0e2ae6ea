//! Gives the sinks of the audit log what they lack, and notes in the catalogue what they have.

use std::sync::{Arc, Weak};

use tokio::time::{Instant, timeout};

use crate::audit;
use crate::audit::sinks::choice::Choice;
use crate::audit::sinks::sink::Sink;
use crate::catalogue::{Catalogue, audit_sinks};
use crate::conditions::Condition;
use crate::context::Kms;
use crate::error::{Code, Error, Result};
use crate::limits;

/// Opens the sinks that were asked for. One that is new gets the records that come from now on.
///
/// # Errors
/// [`Code::InvalidRequest`]; the catalogue's.
pub(crate) async fn open(catalogue: &Catalogue, asked: &[String]) -> Result<Vec<Sink>> {
    let invalid = |text: &str| Error::new(Code::InvalidRequest, text);
    let choices = asked.iter().map(|text| Choice::parse(text));
    let choices = choices
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(invalid)?;
    if choices.len() > limits::SINKS {
        return Err(invalid(&format!(
            "there are at most {} audit sinks",
            limits::SINKS
        )));
    }
    let mut sinks = Vec::new();
    for (index, choice) in choices.iter().enumerate() {
        if choices[..index].iter().any(|other| other.name == choice.name) {
            return Err(invalid(&format!("the audit sink {} is named twice", choice.name)));
        }
        let mut tx = catalogue.write().await?;
        let seq = match audit_sinks::position(&mut tx, &choice.name).await? {
            Some(seq) => seq,
            None => audit::newest(&mut tx).await?.seq,
        };
        audit_sinks::set_position(&mut tx, &choice.name, seq).await?;
        tx.commit().await?;
        let sink = choice.clone().open(seq);
        sinks.push(
            sink.map_err(|error| Error::because(Code::Internal, "an audit sink has no thread", error))?,
        );
    }
    Ok(sinks)
}

/// Looks after all sinks, each on its own, as long as the KMS lives.
pub(crate) fn begin(kms: &Arc<Kms>) {
    for index in 0..kms.sinks.all().len() {
        tokio::spawn(run(Arc::downgrade(kms), index));
    }
}

async fn run(kms: Weak<Kms>, index: usize) {
    let mut pause = limits::SINK_RETRY_FIRST;
    let mut noted = Instant::now();
    loop {
        let Some(living) = kms.upgrade() else { return };
        let Some(sink) = living.sinks.all().get(index) else {
            return;
        };
        let taken = look_after(&living, sink).await;
        if noted.elapsed() >= limits::SINK_LOOK_TIME {
            note(&living, sink).await;
            noted = Instant::now();
        }
        if taken {
            pause = limits::SINK_RETRY_FIRST;
            let wake = Arc::clone(&sink.wake);
            drop(living);
            let _ = timeout(limits::SINK_LOOK_TIME, wake.notified()).await;
        } else {
            drop(living);
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(limits::SINK_RETRY_MOST);
        }
    }
}

/// Whether it has all records now.
async fn look_after(kms: &Kms, sink: &Sink) -> bool {
    let taken = match sink.catch_up(&kms.catalogue).await {
        Ok(taken) => taken,
        Err(error) => Err(error.to_string()),
    };
    let has_all = taken.is_ok();
    if let Err(error) = taken {
        sink.fails(error);
    }
    say(kms);
    has_all
}

/// `kms status` says which sinks take no records.
fn say(kms: &Kms) {
    let failing = kms.sinks.all().iter().filter_map(|sink| {
        let failure = sink.failure()?;
        let what = match sink.required {
            true => "calls that need a record are refused",
            false => "it gets them when it takes them again",
        };
        Some(format!(
            "the audit sink {} takes no records ({}): {what}",
            sink.name, failure.error
        ))
    });
    let failing: Vec<_> = failing.collect();
    match failing.is_empty() {
        true => kms.conditions.clear(Condition::AuditSinkFailed),
        false => kms
            .conditions
            .raise(Condition::AuditSinkFailed, failing.join("; ")),
    }
}

/// Notes how far it is. What it has had since then comes again after a crash.
async fn note(kms: &Kms, sink: &Sink) {
    let noted = async {
        let seq = sink.seq();
        let known = {
            let mut db = kms.catalogue.read().await?;
            audit_sinks::position(&mut db, &sink.name).await?
        };
        if known == Some(seq) {
            return Ok(());
        }
        let mut tx = kms.catalogue.write().await?;
        audit_sinks::set_position(&mut tx, &sink.name, seq).await?;
        tx.commit().await
    };
    let noted: std::result::Result<(), sqlx::Error> = noted.await;
    if let Err(error) = noted {
        log::warn!("how far the audit sink {} is was not noted: {error}", sink.name);
    }
}

/// Gives each sink what it lacks, for the last time, and notes how far it is.
pub(crate) async fn end(kms: &Kms) {
    for sink in kms.sinks.all() {
        if let Ok(Err(error)) = sink.catch_up(&kms.catalogue).await {
            log::warn!(
                "the audit sink {} gets the rest after the next start: {error}",
                sink.name
            );
        }
        note(kms, sink).await;
    }
}
