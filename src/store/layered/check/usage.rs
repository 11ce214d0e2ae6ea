//! Who uses a cluster or a page, compared with what the space table says.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::super::format::{CLUSTER_PAGES, SPACE_ENTRIES};
use super::super::space::Use;
use super::super::table::Births;

/// Something that can be put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// A cluster has a birth, and no map references it.
    LeakedCluster(u32),
    /// A page of the arena counts as used, and nothing references it.
    LeakedPage(u64),
    /// A map of a generation references the cluster, which counts as free, or as born later.
    Underrated { cluster: u32, word: u32, oldest: u32 },
    /// A page is referenced and does not count as used.
    UnmarkedPage(u64),
    /// A map's entry references a cluster where metadata lies.
    Overlaid { cluster: u32, entry: u32 },
}

impl Problem {
    fn cluster(self) -> Option<u32> {
        match self {
            Problem::LeakedCluster(cluster)
            | Problem::Underrated { cluster, .. }
            | Problem::Overlaid { cluster, .. } => Some(cluster),
            Problem::LeakedPage(_) | Problem::UnmarkedPage(_) => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Problem::LeakedCluster(cluster) => {
                write!(f, "cluster {cluster} is in use, and no map references it")
            }
            Problem::LeakedPage(page) => write!(f, "page {page} is in use, and nothing references it"),
            Problem::Underrated {
                cluster,
                word,
                oldest,
            } => match Use::of(word) {
                Use::Data(birth) => write!(
                    f,
                    "cluster {cluster} counts as used since generation {birth}, and a map of generation {oldest} \
                     references it"
                ),
                Use::Free | Use::Arena(_) => write!(
                    f,
                    "cluster {cluster} counts as free, and a map of generation {oldest} references it"
                ),
            },
            Problem::UnmarkedPage(page) => write!(f, "page {page} is referenced, and counts as free"),
            Problem::Overlaid { cluster, entry } => {
                write!(
                    f,
                    "entry {entry} of a map names cluster {cluster}, where metadata lies"
                )
            }
        }
    }
}

/// What is wrong with the use of clusters and pages, after all has been read.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    problems: Vec<Problem>,
    /// Problems of clusters whose use cannot be derived from the maps.
    tangled: Vec<Problem>,
    /// Entries of the table that are to be put right and are no findings, since the table itself is lost.
    derived: Vec<Problem>,
    /// Pages of the space table to be written anew.
    renewed: Vec<u32>,
    /// Pages of maps that cannot be read: their references are not known.
    unreadable: u64,
}

impl Verdict {
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        self.problems.iter().chain(&self.tangled).copied()
    }

    /// Everything to be put right.
    pub(super) fn repairs(&self) -> impl Iterator<Item = (Problem, bool)> + '_ {
        let told = self.problems.iter().map(|problem| (*problem, true));
        told.chain(self.derived.iter().map(|problem| (*problem, false)))
    }

    pub(super) fn renewed(&self) -> &[u32] {
        &self.renewed
    }

    pub(super) fn is_map_unreadable(&self) -> bool {
        self.unreadable > 0
    }

    /// Without clusters whose use has changed meanwhile.
    pub(super) fn without(mut self, trace: &HashSet<u32>) -> Self {
        let counts = |problem: &Problem| problem.cluster().is_none_or(|cluster| !trace.contains(&cluster));
        self.problems.retain(counts);
        self.tangled.retain(counts);
        self
    }
}

/// Who uses which cluster and page.
pub(super) struct Usage {
    /// By physical cluster: the number of the entry that references it, plus one.
    entries: Vec<u32>,
    /// First cluster that can have data.
    fixed: u32,
    /// Clusters that a map references against what the table says.
    underrated: Vec<Problem>,
    /// Clusters that a map references, and that belong to the arena.
    overlaid: Vec<Problem>,
    /// What the table says of pages, by cluster.
    arena: BTreeMap<u32, u16>,
    /// Pages that are referenced, by cluster.
    referenced: BTreeMap<u32, u16>,
    /// Pages of the space table that cannot be read, as ranges of their numbers.
    lost: Vec<std::ops::Range<u32>>,
    /// The space table in memory lacks these, too.
    lost_for_good: bool,
    unreadable: u64,
}

/// Why a reference to a cluster is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misuse {
    /// The file does not have it, or has superblocks and journal there.
    NoData,
    /// Another entry references it.
    Twice(u32),
}

impl Usage {
    pub(super) fn new(fixed: u32, clusters: u32, lost_for_good: bool) -> Self {
        Usage {
            entries: vec![0; clusters as usize],
            fixed,
            underrated: Vec::new(),
            overlaid: Vec::new(),
            arena: BTreeMap::new(),
            referenced: BTreeMap::new(),
            lost: Vec::new(),
            lost_for_good,
            unreadable: 0,
        }
    }

    /// An entry of a map of `generation` references a cluster. Maps come in the order of their generations.
    pub(super) fn reference(
        &mut self,
        births: &Births,
        cluster: u32,
        entry: u32,
        generation: u32,
    ) -> Result<(), Misuse> {
        let Some(owner) = self.entries.get_mut(cluster as usize) else {
            return Err(Misuse::NoData);
        };
        if cluster < self.fixed {
            return Err(Misuse::NoData);
        }
        if *owner != 0 {
            let other = *owner - 1;
            return if other == entry {
                Ok(())
            } else {
                Err(Misuse::Twice(other))
            };
        }
        *owner = entry + 1;
        let word = births.get(cluster);
        match Use::of(word) {
            Use::Data(birth) if birth <= generation => {}
            Use::Arena(_) => self.overlaid.push(Problem::Overlaid { cluster, entry }),
            Use::Data(_) | Use::Free => self.underrated.push(Problem::Underrated {
                cluster,
                word,
                oldest: generation,
            }),
        }
        Ok(())
    }

    /// A page is referenced.
    pub(super) fn reference_page(&mut self, page: u64) {
        if let Some((cluster, bit)) = place_of(page)
            && cluster >= self.fixed
        {
            *self.referenced.entry(cluster).or_default() |= bit;
        }
    }

    /// What the table says of a cluster.
    pub(super) fn table_says(&mut self, cluster: u32, word: u32) {
        if let Use::Arena(pages) = Use::of(word) {
            self.arena.insert(cluster, pages);
        }
    }

    /// Pages of the table cannot be read.
    pub(super) fn lose(&mut self, pages: std::ops::Range<u32>) {
        self.lost.push(pages);
    }

    /// A page of a map cannot be read.
    pub(super) fn is_unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// After everything was referenced.
    pub(super) fn verdict(mut self, births: &Births) -> Verdict {
        let mut verdict = Verdict {
            unreadable: self.unreadable,
            renewed: self.lost.iter().map(|pages| pages.start).collect(),
            tangled: std::mem::take(&mut self.overlaid),
            ..Verdict::default()
        };
        for problem in std::mem::take(&mut self.underrated) {
            let problem = match problem {
                // What unreadable maps share must not be written in place.
                Problem::Underrated { cluster, word, .. } if self.unreadable > 0 => Problem::Underrated {
                    cluster,
                    word,
                    oldest: 1,
                },
                problem => problem,
            };
            let lost = problem.cluster().is_some_and(|cluster| self.is_lost(cluster));
            if self.lost_for_good && lost {
                verdict.derived.push(problem);
            } else {
                verdict.problems.push(problem);
            }
        }
        self.judge_pages(&mut verdict);
        if self.unreadable == 0 {
            let unreferenced = (self.fixed..).zip(&self.entries[self.fixed as usize..]);
            let leaked = unreferenced
                .filter(|(cluster, entry)| {
                    **entry == 0 && matches!(Use::of(births.get(*cluster)), Use::Data(_))
                })
                .map(|(cluster, _)| Problem::LeakedCluster(cluster));
            verdict.problems.extend(leaked);
        }
        verdict
    }

    fn judge_pages(&self, verdict: &mut Verdict) {
        for (cluster, referenced) in &self.referenced {
            let marked = self.arena.get(cluster).copied().unwrap_or_default();
            let unmarked = pages_of(*cluster, referenced & !marked).map(Problem::UnmarkedPage);
            let has_data = self
                .entries
                .get(*cluster as usize)
                .is_none_or(|entry| *entry != 0);
            if has_data {
                verdict.tangled.extend(unmarked);
            } else if !self.is_lost(*cluster) {
                verdict.problems.extend(unmarked);
            } else if self.lost_for_good {
                verdict.derived.extend(unmarked);
            }
        }
        if self.unreadable > 0 {
            return;
        }
        // Below an index page of the table that is lost are leaves which nothing references any more.
        let below_lost = self.lost.iter().any(|pages| pages.len() > 1);
        for (cluster, marked) in &self.arena {
            let referenced = self.referenced.get(cluster).copied().unwrap_or_default();
            let leaked = pages_of(*cluster, marked & !referenced).map(Problem::LeakedPage);
            if !below_lost {
                verdict.problems.extend(leaked);
            } else if self.lost_for_good {
                verdict.derived.extend(leaked);
            }
        }
    }

    fn is_lost(&self, cluster: u32) -> bool {
        let page = cluster / SPACE_ENTRIES as u32;
        self.lost.iter().any(|pages| pages.contains(&page))
    }
}

fn place_of(page: u64) -> Option<(u32, u16)> {
    let cluster = u32::try_from(page / CLUSTER_PAGES).ok()?;
    Some((cluster, 1 << (page % CLUSTER_PAGES)))
}

fn pages_of(cluster: u32, bits: u16) -> impl Iterator<Item = u64> {
    let first = u64::from(cluster) * CLUSTER_PAGES;
    (0..CLUSTER_PAGES)
        .filter(move |page| bits >> page & 1 != 0)
        .map(move |page| first + page)
}
