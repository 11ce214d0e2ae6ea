//! Gives the sinks of the audit log what they lack, and notes in the catalogue what they have.

use std::sync::{Arc, Weak};

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::audit::sinks::choice::Choice;
use crate::audit::sinks::sink::Sink;
use crate::audit::{self, sinks};
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
        let outcome = look_after(&living, sink).await;
        if noted.elapsed() >= limits::SINK_LOOK_TIME {
            note(&living, sink).await;
            noted = Instant::now();
        }
        let wake = Arc::clone(&sink.wake);
        drop(living);
        match outcome {
            Ok(has_all) => {
                pause = limits::SINK_RETRY_FIRST;
                if has_all {
                    let _ = timeout(limits::SINK_LOOK_TIME, wake.notified()).await;
                }
            }
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(limits::SINK_RETRY_MOST);
            }
        }
    }
}

/// Gives it some of what it lacks: whether it had all.
async fn look_after(kms: &Kms, sink: &Sink) -> Result<bool> {
    let had_all = sinks::round(sink, &kms.catalogue).await;
    if let Err(error) = &had_all
        && error.code() != Code::AuditSinkFailed
    {
        sink.fails(error.full_message());
    }
    say(kms);
    had_all
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

/// Gives each sink what it lacks, for the last time, and notes how far it is. All have the same time for that.
pub(crate) async fn end(kms: &Arc<Kms>) {
    let deadline = Instant::now() + limits::SINK_TIME;
    let mut ends = JoinSet::new();
    for index in 0..kms.sinks.all().len() {
        ends.spawn(end_one(Arc::clone(kms), index, deadline));
    }
    while let Some(ended) = ends.join_next().await {
        if let Err(error) = ended {
            log::error!("an audit sink was not ended: {error}");
        }
    }
}

async fn end_one(kms: Arc<Kms>, index: usize, deadline: Instant) {
    let Some(sink) = kms.sinks.all().get(index) else {
        return;
    };
    if let Err(error) = sinks::catch_up(std::iter::once(sink), &kms.catalogue, deadline).await {
        let name = &sink.name;
        let why = sink
            .failure()
            .map_or_else(|| error.full_message(), |failure| failure.error);
        log::warn!("the audit sink {name} gets the rest after the next start: {why}");
    }
    note(&kms, sink).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::sinks::tests::gated;
    use crate::calls::tests::World;

    #[tokio::test(flavor = "multi_thread")]
    async fn at_the_end_no_sink_waits_for_another() {
        let world = World::new().await;
        let newest = {
            let mut db = world.kms.catalogue.read().await.unwrap();
            audit::newest(&mut db).await.unwrap().seq
        };
        let (one, mut first) = gated("one", true, newest - 1);
        let (two, mut second) = gated("two", false, newest - 1);
        world.kms.sinks.set(vec![one, two]);
        let kms = Arc::clone(&world.kms);
        let ending = tokio::spawn(async move { end(&kms).await });
        assert_eq!(first.given().await, [newest]);
        assert_eq!(second.given().await, [newest]);
        first.takes(1);
        second.takes(1);
        ending.await.unwrap();
        let mut db = world.kms.catalogue.read().await.unwrap();
        for name in ["one", "two"] {
            assert_eq!(audit_sinks::position(&mut db, name).await.unwrap(), Some(newest));
        }
    }
}
