//! A medium in memory that records what happens to it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use sealblk::store::layered::Medium;

use crate::faults::{Call, Failing, Faults, Hit, Lasting};
use crate::sectors::{SECTOR, is_data};

pub(crate) const PAGE: usize = 4096;

/// Contents of a medium. Copies are cheap: they share pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    size: u64,
}

/// Something that happened to a medium.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write {
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Punch {
        offset: u64,
        len: u64,
    },
    Grow(u64),
    /// Everything before is durable, but what an earlier sync that failed has lost.
    Sync,
    /// A sync that failed: of the events before, those that were not durable and whose bit is set never will be, whatever
    /// later syncs say (a page that could not be written counts as clean, fsync(2)), and the page cache forgets them, too,
    /// at the next one.
    Lost(u64),
}

/// The medium. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    inner: Arc<Mutex<Inner>>,
    /// Shared with the media beside it.
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug)]
struct Inner {
    image: Image,
    events: Vec<Event>,
    limits: Limits,
    /// Pages that are reserved, written or not.
    reserved: Vec<bool>,
    /// Pages that cannot be read.
    unreadable: BTreeSet<u64>,
}

/// How much it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Its length can be no more.
    pub(crate) bytes: u64,
    /// No more pages of it can have content.
    pub(crate) pages: usize,
}

impl Limits {
    pub(crate) const NONE: Limits = Limits {
        bytes: 1 << 40,
        pages: usize::MAX,
    };
}

impl Image {
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> bool {
        if offset + bytes.len() as u64 > self.size {
            return false;
        }
        each_page(offset, bytes.len(), |page, within, at| {
            let to = &mut bytes[at..at + within.len()];
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(content) => to.copy_from_slice(&content[within]),
                None => to.fill(0),
            }
        });
        true
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.grow(offset + bytes.len() as u64);
        each_page(offset, bytes.len(), |page, within, at| {
            let content = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            let from = &bytes[at..at + within.len()];
            Arc::make_mut(content)[within].copy_from_slice(from);
        });
    }

    pub(crate) fn punch(&mut self, offset: u64, len: u64) {
        let first = offset as usize / PAGE;
        let last = (offset + len) as usize / PAGE;
        let last = last.min(self.pages.len());
        self.pages[first.min(last)..last].fill(None);
    }

    pub(crate) fn grow(&mut self, size: u64) {
        if size > self.size {
            self.size = size;
            self.pages.resize((size as usize).div_ceil(PAGE), None);
        }
    }

    /// Pages with content.
    pub(crate) fn used(&self) -> usize {
        self.pages.iter().flatten().count()
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { offset, bytes } => self.write(*offset, bytes),
            Event::Punch { offset, len } => self.punch(*offset, *len),
            Event::Grow(size) => self.grow(*size),
            Event::Sync | Event::Lost(_) => {}
        }
    }
}

/// Calls `part(page, bytes within the page, index into the whole)` for each page that a range touches.
fn each_page(offset: u64, len: usize, mut part: impl FnMut(usize, std::ops::Range<usize>, usize)) {
    let mut at = 0;
    while at < len {
        let position = offset as usize + at;
        let within = position % PAGE;
        let end = PAGE.min(within + len - at);
        part(position / PAGE, within..end, at);
        at += end - within;
    }
}

impl Recording {
    pub(crate) fn new(image: Image, limits: Limits) -> Self {
        Recording {
            inner: Arc::new(Mutex::new(Inner {
                image,
                events: Vec::new(),
                limits,
                reserved: Vec::new(),
                unreadable: BTreeSet::new(),
            })),
            faults: Arc::default(),
        }
    }

    /// An empty one, whose calls are counted, and fail, together with this one's.
    pub(crate) fn beside(&self) -> Self {
        Recording {
            faults: self.faults.clone(),
            ..Recording::new(Image::default(), Limits::NONE)
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// What fails, and what has failed.
    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    /// Counts a call, and fails it if it is to fail.
    fn call(&self, call: Call, offset: u64, bytes: &[u8]) -> Result<(), Failing> {
        self.faults().call(call, self.place(offset), is_data(bytes))
    }

    fn place(&self, offset: u64) -> (usize, u64) {
        (Arc::as_ptr(&self.inner).addr(), offset)
    }

    /// Calls of this medium that failed.
    pub(crate) fn hits(&self) -> Vec<Hit> {
        let (this, _) = self.place(0);
        let faults = self.faults();
        let hits = faults.hits.iter().filter(|hit| hit.place.0 == this);
        hits.cloned().collect()
    }

    /// Everything goes well from now on.
    pub(crate) fn heal(&self) {
        self.faults().begin(Vec::new());
        self.set_unreadable([]);
    }

    /// What it holds now.
    pub(crate) fn image(&self) -> Image {
        self.inner().image.clone()
    }

    /// Number of events so far.
    pub(crate) fn position(&self) -> usize {
        self.inner().events.len()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.inner().events.clone()
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        self.inner().limits = limits;
    }

    /// From now on these pages, and no others, cannot be read, each until it is written as a whole.
    pub(crate) fn set_unreadable(&self, pages: impl IntoIterator<Item = u64>) {
        self.inner().unreadable = pages.into_iter().collect();
    }
}

impl Inner {
    fn ensure_readable(&self, offset: u64, len: usize) -> io::Result<()> {
        let mut bad = false;
        each_page(offset, len, |page, _, _| {
            bad |= self.unreadable.contains(&(page as u64))
        });
        if bad {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    /// A page that is written in part is read first, as the page cache does it; one that is written as a whole can be
    /// read again.
    fn overwrite(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let (mut parts, mut wholes) = (Vec::new(), Vec::new());
        each_page(offset, len, |page, within, _| match within.len() {
            PAGE => wholes.push(page as u64),
            _ => parts.push(page),
        });
        for page in parts {
            self.ensure_readable((page * PAGE) as u64, PAGE)?;
        }
        wholes.iter().for_each(|page| _ = self.unreadable.remove(page));
        Ok(())
    }

    fn ensure_room(&mut self, offset: u64, len: usize) -> io::Result<()> {
        if self.limits.pages == usize::MAX {
            return Ok(());
        }
        let mut fresh = 0;
        each_page(offset, len, |page, _, _| {
            let there = self.image.pages.get(page).is_some_and(Option::is_some);
            let reserved = self.reserved.get(page).copied().unwrap_or(false);
            fresh += usize::from(!there && !reserved);
        });
        let reserved =
            self.reserved.iter().enumerate().filter(|(page, reserved)| {
                **reserved && self.image.pages.get(*page).is_none_or(Option::is_none)
            });
        if fresh > 0 && self.image.used() + reserved.count() + fresh > self.limits.pages {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }
}

impl Medium for Recording {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let outcome = self.call(Call::Read, offset, &[]);
        let mut inner = self.inner();
        if let Err(failing) = outcome {
            if failing.lasting == Lasting::There {
                let touched = offset / PAGE as u64..(offset + bytes.len() as u64).div_ceil(PAGE as u64);
                inner.unreadable.extend(touched);
            }
            return Err(failing.into());
        }
        inner.ensure_readable(offset, bytes.len())?;
        match inner.image.read(offset, bytes) {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let outcome = self.call(Call::Write, offset, bytes);
        let mut inner = self.inner();
        inner.ensure_room(offset, bytes.len())?;
        if let Err(error) = inner.overwrite(offset, bytes.len()) {
            self.faults().hit(Call::Write, self.place(offset), is_data(bytes));
            return Err(error);
        }
        // A write that fails may have been done in part.
        let part = match &outcome {
            Ok(()) => bytes,
            Err(failing) => &bytes[..bytes.len() / SECTOR * (failing.left % 3) as usize / 2 * SECTOR],
        };
        if !part.is_empty() {
            inner.image.write(offset, part);
            let bytes = part.into();
            inner.events.push(Event::Write { offset, bytes });
        }
        Ok(outcome?)
    }

    fn sync(&self) -> io::Result<()> {
        let outcome = self.call(Call::Sync, 0, &[]);
        let event = match &outcome {
            Ok(()) => Event::Sync,
            Err(failing) => Event::Lost(failing.left),
        };
        self.inner().events.push(event);
        Ok(outcome?)
    }

    fn size(&self) -> io::Result<u64> {
        self.call(Call::Size, 0, &[])?;
        Ok(self.inner().image.size)
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        self.call(Call::Grow, 0, &[])?;
        let mut inner = self.inner();
        if size > inner.limits.bytes {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        inner.image.grow(size);
        inner.events.push(Event::Grow(size));
        Ok(())
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(Call::Reserve, offset, &[])?;
        let mut inner = self.inner();
        inner.ensure_room(offset, len as usize)?;
        let end = (offset + len) as usize / PAGE;
        if inner.reserved.len() < end {
            inner.reserved.resize(end, false);
        }
        inner.reserved[offset as usize / PAGE..end].fill(true);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(Call::Punch, offset, &[])?;
        let mut inner = self.inner();
        inner.image.punch(offset, len);
        inner.events.push(Event::Punch { offset, len });
        Ok(())
    }
}
