//! What may be on a medium after a crash.

use crate::medium::{Event, Image, PAGE};
use crate::rng::Rng;
use crate::sectors::SECTOR;

/// Writes between two syncs of which all subsets are tried.
pub(crate) const ALL_SUBSETS: usize = 12;

/// How a host or process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process was killed; the page cache has everything.
    Kill,
    /// Only what was synced is sure.
    PowerCut,
}

/// A moment in a history: what is durable, and what happened since.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    /// Contents as of the last sync that went well.
    pub(crate) durable: Image,
    /// Events since, up to the moment.
    pub(crate) loose: &'a [Event],
}

impl Moment<'_> {
    /// After `events[..position]`, with `start` on the medium before.
    pub(crate) fn at<'a>(start: &Image, events: &'a [Event], position: usize) -> Moment<'a> {
        let before = &events[..position];
        let synced = before.iter().rposition(|event| matches!(event, Event::Sync));
        let synced = synced.map_or(0, |sync| sync + 1);
        let mut durable = start.clone();
        let mut since: Vec<&Event> = Vec::new();
        for event in &before[..synced] {
            match event {
                Event::Sync => since.drain(..).for_each(|event| durable.apply(event)),
                Event::Lost(bits) => {
                    let mut bits = (0..64).cycle().map(|bit| bits >> bit & 1);
                    since.retain(|_| bits.next() == Some(0));
                }
                event => since.push(event),
            }
        }
        Moment {
            durable,
            loose: &before[synced..],
        }
    }

    /// Exactly everything.
    pub(crate) fn killed(&self) -> Image {
        let mut image = self.durable.clone();
        self.loose.iter().for_each(|event| image.apply(event));
        image
    }

    /// Of the loose events, those whose bit is set.
    pub(crate) fn subset(&self, bits: u64) -> Image {
        let mut image = self.durable.clone();
        let chosen = self.loose.iter().enumerate();
        chosen
            .filter(|(index, _)| bits >> (index % 64) & 1 == 1)
            .for_each(|(_, event)| image.apply(event));
        image
    }

    /// Of the loose events some, of some of them a part.
    pub(crate) fn torn(&self, rng: &mut Rng) -> Image {
        let mut image = self.durable.clone();
        for event in self.loose {
            match (rng.below(0..4), event) {
                (0, _) => {}
                (1, Event::Write { offset, bytes }) => {
                    let unit = if rng.once_in(2) { SECTOR } else { PAGE };
                    for (index, part) in bytes.chunks(unit).enumerate() {
                        if rng.once_in(2) {
                            image.write(offset + (index * unit) as u64, part);
                        }
                    }
                }
                (_, event) => image.apply(event),
            }
        }
        image
    }

    /// What a power cut may leave, `most` of them: all subsets if they are so few, else some, and some with torn writes.
    pub(crate) fn power_cuts(&self, most: usize, rng: &mut Rng) -> Vec<Image> {
        let count = self.loose.len();
        let torn = most.div_ceil(4).min(2 * count);
        let mut images: Vec<Image> = (0..torn).map(|_| self.torn(rng)).collect();
        if count <= ALL_SUBSETS && 1 << count <= most {
            images.extend((0..1 << count).map(|bits| self.subset(bits)));
        } else {
            images.push(self.subset(0));
            while images.len() < most {
                // Everything before some event, and some of what follows.
                let prefix = (1u64 << rng.below(0..count.min(63) as u64 + 1)) - 1;
                images.push(self.subset(prefix | rng.next() & rng.next()));
            }
        }
        images
    }
}
