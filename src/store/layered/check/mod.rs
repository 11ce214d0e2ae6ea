//! Examination of all metadata: every page is read, and every cluster must be used by whom the space table says.
//!
//! What is examined is the last checkpoint, which is made for it. The store may be in use meanwhile: pages that are
//! replaced are kept until it is done, and clusters whose use has changed are left out of the verdict.
//!
//! A store whose space table is damaged is opened for nothing but this, since without the table nothing may be written.
//! The repair derives it from the maps, and then goes on with what opening the store does.

mod examination;
mod findings;
mod repair;
mod subject;
mod usage;

use std::collections::HashSet;
use std::sync::PoisonError;

use super::checkpoint::Maintenance;
use super::error::LayeredError;
use super::format::PAGE_BYTES;
use super::format::page::{Kind, Place, blank};
use super::format::superblock::{FIRST_PAGE, MARK_PAGE, Superblock, TWIN_PAGE};
use super::medium::Medium;
use super::store::LayeredStore;
use super::superblocks::is_marked;
use super::tree::read_page;
use examination::Examination;
use subject::Subject;

pub use findings::Findings;

impl<M: Medium> LayeredStore<M> {
    /// Reads and compares all metadata. With `repair`, what can be derived is mended; no request may be in flight.
    ///
    /// # Errors
    /// [`LayeredError`], if it cannot be examined. Damage is a finding and no error.
    pub fn check_all(&self, repair: bool) -> Result<Findings, LayeredError> {
        self.check_while(repair, &|| true)
    }

    /// The same, as long as it is wanted.
    ///
    /// # Errors
    /// [`LayeredError`]; [`LayeredError::Unwanted`] if it was given up, with nothing repaired.
    pub fn check_while(&self, repair: bool, is_wanted: &dyn Fn() -> bool) -> Result<Findings, LayeredError> {
        let _alone = self.examination.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.maintain();
        if self.suspended().is_some() {
            return self.check_suspended(&held, repair, is_wanted);
        }
        self.ensure_usable()?;
        let mut findings = Findings::default();
        if repair {
            self.check_at_rest(&held, true, is_wanted, &mut findings)?;
            return Ok(findings);
        }
        drop(held);
        if !self.check_beside_work(is_wanted, &mut findings)? {
            self.check_at_rest(&self.maintain(), false, is_wanted, &mut findings)?;
        }
        Ok(findings)
    }

    /// Examines without holding up checkpoints. False: so many were made that there was no room to keep what they
    /// replaced. Then only what will not be found a second time is among the findings.
    fn check_beside_work(
        &self,
        is_wanted: &dyn Fn() -> bool,
        findings: &mut Findings,
    ) -> Result<bool, LayeredError> {
        let subject = {
            let held = self.maintain();
            self.settle_subject(&held, true, findings)?
        };
        let before = findings.clone();
        let verdict = Examination::of(self, &subject, is_wanted, findings).map(Examination::verdict);
        let (held_pages, trace) = self.end_examination();
        let verdict = verdict?;
        if held_pages {
            findings.add_verdict(&verdict.without(&trace));
        } else {
            *findings = before;
        }
        Ok(held_pages)
    }

    fn end_examination(&self) -> (bool, HashSet<u32>) {
        let mut state = self.state();
        (state.stop_holding_pages(), state.space.set_trace(false))
    }

    fn check_at_rest(
        &self,
        held: &Maintenance<'_>,
        repair: bool,
        is_wanted: &dyn Fn() -> bool,
        findings: &mut Findings,
    ) -> Result<(), LayeredError> {
        let subject = self.settle_subject(held, false, findings)?;
        let verdict = Examination::of(self, &subject, is_wanted, findings).map(Examination::verdict);
        let (_, trace) = self.end_examination();
        let verdict = verdict?.without(&trace);
        findings.add_verdict(&verdict);
        if repair {
            self.repair(&verdict, findings);
            self.checkpoint(held)?;
        }
        Ok(())
    }

    /// Makes the checkpoint that is examined, from where on changes are traced. It writes anew what is written anew by
    /// each, so that this is read before.
    fn settle_subject(
        &self,
        held: &Maintenance<'_>,
        hold_pages: bool,
        findings: &mut Findings,
    ) -> Result<Subject, LayeredError> {
        let (before, reports, is_frozen) = {
            let mut state = self.state();
            let reports = std::mem::take(&mut state.reports);
            (state.superblock.clone(), reports, state.freeze.is_some())
        };
        reports.into_iter().for_each(|report| findings.mended(report));
        self.read_lists(&before, |sentence| findings.mended(sentence));
        let newest_is_bad = self.read_superblocks(&before, findings);
        self.renew_mark(findings).inspect_err(|error| self.fail(error))?;
        // A checkpoint overwrites the older copy, and writes the map as it was when it was frozen.
        if is_frozen || newest_is_bad {
            self.checkpoint(held)?;
        }
        {
            let mut state = self.state();
            state.space.set_trace(true);
            state.held_pages = hold_pages.then(Vec::new);
        }
        self.checkpoint(held)
            .inspect_err(|_| _ = self.end_examination())?;
        let state = self.state();
        Ok(Subject {
            superblock: state.superblock.clone(),
            snapshots: state.snapshots.clone(),
            clusters: state.space.clusters(),
        })
    }

    /// Reads both copies. Returns whether the newer one must be written anew; the older one is in any case.
    fn read_superblocks(&self, newest: &Superblock, findings: &mut Findings) -> bool {
        let mut newest_is_bad = false;
        for page in [FIRST_PAGE, TWIN_PAGE] {
            findings.pages += 1;
            let mut bytes = blank();
            let read = self.medium.read(page * PAGE_BYTES as u64, &mut bytes[..]);
            let is_newest = page == newest.page();
            let is_good = match (read, Superblock::decode(&bytes)) {
                (Ok(()), Ok(superblock)) if is_newest => superblock == *newest,
                (Ok(()), Ok(superblock)) => {
                    superblock.uuid == newest.uuid && superblock.sequence < newest.sequence
                }
                _ => false,
            };
            if !is_good {
                newest_is_bad |= is_newest;
                findings.mended(format!("page {page} (a copy of the superblock) was damaged"));
            }
        }
        newest_is_bad
    }

    /// Writes the mark of the version anew if it is not as it was written.
    fn renew_mark(&self, findings: &mut Findings) -> Result<(), LayeredError> {
        findings.pages += 1;
        if is_marked(&self.medium) {
            return Ok(());
        }
        findings.mended(format!("page {MARK_PAGE} (the mark of the version) was damaged"));
        self.state().is_marked = false;
        self.sync_medium()?;
        self.write_mark()
    }

    /// Reads the pages of snapshots and pins that a superblock refers to.
    fn read_lists(&self, superblock: &Superblock, mut bad: impl FnMut(String)) {
        let lists = [
            (Kind::Snapshots, &superblock.snapshots),
            (Kind::Pins, &superblock.pins),
        ];
        for (kind, references) in lists {
            for (position, reference) in (0..).zip(references) {
                let place = Place { kind, position };
                if let Err(error) = read_page(&self.medium, self.uuid, place, *reference) {
                    bad(format!("it was written anew: {error}"));
                }
            }
        }
    }

    /// Examines the checkpoint that a store was found with whose space table is damaged.
    fn check_suspended(
        &self,
        held: &Maintenance<'_>,
        repair: bool,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Findings, LayeredError> {
        let mut findings = Findings::default();
        let subject = {
            let state = self.state();
            Subject {
                superblock: state.superblock.clone(),
                snapshots: state.snapshots.clone(),
                clusters: state.space.clusters().max(state.superblock.clusters),
            }
        };
        let verdict = Examination::of(self, &subject, is_wanted, &mut findings)?.verdict();
        findings.add_verdict(&verdict);
        if !repair {
            return Ok(findings);
        }
        if verdict.is_map_unreadable() {
            findings.note(
                "the space table is not rebuilt: what the unreadable pages reference is not known".to_owned(),
            );
            return Ok(findings);
        }
        self.repair(&verdict, &mut findings);
        self.resume(held)?;
        Ok(findings)
    }
}
