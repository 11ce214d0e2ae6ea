//! Sinks that a test holds, and how far they get.

use std::io;
use std::sync::mpsc;
use std::time::Instant;

use sealblk_api::{AuditRecord, Details};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::deliver::Deliver;
use super::sink::Sink;
use super::{Sinks, round};
use crate::audit::{self, Caller, Decision, Facts};
use crate::catalogue::Catalogue;
use crate::error::Code;

pub(in crate::audit::sinks) fn record(seq: u64) -> AuditRecord {
    let mut details = Details::new();
    details.insert("disk".into(), "disk-1".into());
    AuditRecord {
        id: format!("audit-{seq}"),
        name: format!("audit-{seq}"),
        seq,
        time: "2026-11-22T01:02:03.004Z".into(),
        account: "default".into(),
        uid: 0,
        pid: 42,
        request: "req-1".into(),
        call: "attach".into(),
        object: "data".into(),
        decision: "allowed".into(),
        rule: None,
        code: None,
        details: Some(details),
        hash: String::new(),
    }
}

/// From here on this thread's calls of the kernel fail so.
pub(in crate::audit::sinks) fn fail(call: libc::c_long, errno: i32) {
    let filter = SeccompFilter::new(
        [(call, vec![])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// The end of a sink where its records arrive.
pub(crate) struct Gate {
    given: tokio::sync::mpsc::UnboundedReceiver<Vec<u64>>,
    taken: mpsc::Sender<usize>,
}

impl Gate {
    /// What it is given next.
    pub(crate) async fn given(&mut self) -> Vec<u64> {
        self.given.recv().await.expect("the sink is there")
    }

    /// So many of them are taken.
    pub(crate) fn takes(&self, records: usize) {
        self.taken.send(records).unwrap();
    }
}

struct Gated {
    given: tokio::sync::mpsc::UnboundedSender<Vec<u64>>,
    taken: mpsc::Receiver<usize>,
}

impl Deliver for Gated {
    fn deliver(&mut self, records: &[AuditRecord], _: Instant, taken: &mut usize) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let seqs = records.iter().map(|record| record.seq).collect();
        self.given.send(seqs).map_err(io::Error::other)?;
        *taken = self.taken.recv().map_err(io::Error::other)?;
        match *taken == records.len() {
            true => Ok(()),
            false => Err(io::Error::other("it takes no more")),
        }
    }
}

/// A sink that has all records up to this position, and takes others as the gate says.
pub(crate) fn gated(name: &str, required: bool, seq: u64) -> (Sink, Gate) {
    let (given, arrives) = tokio::sync::mpsc::unbounded_channel();
    let (takes, taken) = mpsc::channel();
    let deliver = Box::new(Gated { given, taken });
    let gate = Gate {
        given: arrives,
        taken: takes,
    };
    (Sink::start(name.into(), required, seq, deliver).unwrap(), gate)
}

async fn with_records(records: u64) -> (tempfile::TempDir, Catalogue) {
    let directory = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::create(&directory.path().join("catalogue.db"))
        .await
        .unwrap();
    let mut tx = catalogue.write().await.unwrap();
    for _ in 0..records {
        append(&mut tx).await;
    }
    tx.commit().await.unwrap();
    (directory, catalogue)
}

async fn append(tx: &mut crate::catalogue::Db) {
    let caller = Caller {
        account: "default".into(),
        uid: 7,
        pid: 8,
        request: "req-1".into(),
        facts: Facts::default(),
    };
    audit::append(tx, &caller, "attach", "disk-1", Decision::Allowed)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_sink_that_takes_some_records_gets_the_others_next_and_does_not_fail() {
    let (_directory, catalogue) = with_records(5).await;
    let (sink, mut gate) = gated("slow", false, 0);
    for (lacks, takes) in [(vec![1, 2, 3, 4, 5], 2), (vec![3, 4, 5], 1), (vec![4, 5], 2)] {
        gate.takes(takes);
        assert!(!round(&sink, &catalogue).await.unwrap());
        assert_eq!(gate.given().await, lacks);
        assert!(sink.failure().is_none());
    }
    assert!(round(&sink, &catalogue).await.unwrap());
    assert_eq!(sink.seq(), 5);
}

#[tokio::test]
async fn a_sink_that_takes_no_record_fails_until_it_has_all() {
    let (_directory, catalogue) = with_records(2).await;
    let (sink, gate) = gated("slow", true, 0);
    let sinks = Sinks::default();
    sinks.set(vec![sink]);
    let sink = &sinks.all()[0];
    for takes in [0, 1, 1] {
        gate.takes(takes);
        assert_eq!(round(sink, &catalogue).await.is_ok(), takes > 0);
        assert_eq!(sinks.check().unwrap_err().code(), Code::AuditSinkFailed);
    }
    assert!(round(sink, &catalogue).await.unwrap());
    sinks.check().unwrap();
}

#[tokio::test]
async fn what_was_taken_of_a_transaction_counts_when_that_is_committed() {
    let (_directory, catalogue) = with_records(1).await;
    let (sink, mut gate) = gated("required", true, 0);
    let sinks = Sinks::default();
    sinks.set(vec![sink]);
    for commits in [false, true] {
        gate.takes(1);
        let mut turn = sinks.turn(&catalogue).await.unwrap();
        if !commits {
            assert_eq!(gate.given().await, [1], "what it lacks comes before");
            gate.takes(1);
        }
        let mut tx = catalogue.write().await.unwrap();
        append(&mut tx).await;
        turn.take(&mut tx).await.unwrap();
        assert_eq!(gate.given().await, [2]);
        match commits {
            true => {
                tx.commit().await.unwrap();
                turn.done();
            }
            false => tx.rollback().await.unwrap(),
        }
        assert_eq!(sinks.all()[0].seq(), if commits { 2 } else { 1 });
    }
}

/// A part of what a decision needs is not enough.
#[tokio::test]
async fn a_decision_needs_all_its_records_to_be_taken() {
    let (_directory, catalogue) = with_records(0).await;
    let (sink, mut gate) = gated("required", true, 0);
    let sinks = Sinks::default();
    sinks.set(vec![sink]);
    let mut turn = sinks.turn(&catalogue).await.unwrap();
    let mut tx = catalogue.write().await.unwrap();
    append(&mut tx).await;
    append(&mut tx).await;
    gate.takes(1);
    gate.takes(0);
    let error = turn.take(&mut tx).await.unwrap_err();
    assert_eq!(error.code(), Code::AuditSinkFailed);
    assert_eq!((gate.given().await, gate.given().await), (vec![1, 2], vec![2]));
    drop(turn);
    assert_eq!(sinks.all()[0].seq(), 0);
}

struct Broken;

impl Deliver for Broken {
    fn deliver(&mut self, records: &[AuditRecord], _: Instant, _: &mut usize) -> io::Result<()> {
        assert!(records.is_empty(), "it is broken");
        Ok(())
    }
}

#[tokio::test]
async fn a_sink_whose_thread_has_ended_says_so_and_does_not_seem_slow() {
    let (_directory, catalogue) = with_records(1).await;
    let sink = Sink::start("broken".into(), true, 0, Box::new(Broken)).unwrap();
    for _ in 0..3 {
        let error = round(&sink, &catalogue).await.unwrap_err();
        assert!(error.to_string().contains("its thread has ended"), "{error}");
    }
}
