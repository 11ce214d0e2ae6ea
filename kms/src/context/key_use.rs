//! For whom and for what a process is given a lineage key, as the audit log has it (rules M04 and A06).

use crate::audit::{Caller, Facts};
use crate::catalogue::copies::Origin;
use crate::catalogue::intents::Work;
use crate::catalogue::{Db, attachments, copies, intents};
use crate::context::facts;
use crate::error::Result;
use crate::host::records::KeyUse;
use crate::id::{self, Kind};

/// Why a process is given the key of a disk again that is attached already.
const RESTART: &str = "restart";

/// A call that needs a key.
struct Cause {
    /// Its name, or [`RESTART`].
    reason: String,
    request: Option<String>,
    /// Who has made it.
    uid: Option<u32>,
    /// The key is used within it; whoever made it waits, unless it is a daemon's later start that ends it.
    waits: bool,
}

/// The daemon, for the call that the key is used for, and whether it is used within that call. For as long as a disk is attached that
/// is its attach, which the key's later uses name too.
///
/// # Errors
/// The catalogue's; [`crate::error::Code::Internal`] without randomness.
pub(super) async fn caller_of(db: &mut Db, wanted: &KeyUse<'_>) -> Result<(Caller, bool)> {
    let facts = Facts::default();
    facts.note("disk", wanted.volume);
    facts::lineage(&facts, Some(wanted.lineage));
    let cause = cause(db, wanted, &facts).await?;
    let waits = cause.waits;
    facts.note("reason", cause.reason);
    facts.note_if("for_uid", cause.uid);
    let caller = Caller {
        account: wanted.account.to_owned(),
        uid: rustix::process::geteuid().as_raw(),
        pid: std::process::id().cast_signed(),
        request: cause.request.map_or_else(|| id::new(Kind::Request), Ok)?,
        facts,
    };
    Ok((caller, waits))
}

async fn cause(db: &mut Db, wanted: &KeyUse<'_>, facts: &Facts) -> Result<Cause> {
    let open = intents::opened_on(db, wanted.volume).await?;
    let mut served = attachments::of_disk(db, wanted.volume).await?;
    // A copy's process, which has the key of a disk that is attached elsewhere, is none of its attachments'.
    served.retain(|attachment| attachment.service == wanted.object);
    if let [first, others @ ..] = &served[..] {
        facts.note("attachment", first.id.as_str());
        facts.note("instance", first.instance.as_str());
        if !others.is_empty() {
            let instances: Vec<_> = served.iter().map(|row| row.instance.as_str()).collect();
            facts.note("instances", instances);
        }
        let is_attach = |work: &Work| matches!(work, Work::Attach { attachment } if *attachment == first.id);
        let attaches = open.iter().any(|intent| is_attach(&intent.work));
        return Ok(Cause {
            waits: attaches,
            reason: if attaches { "attach" } else { RESTART }.to_owned(),
            request: first.request.clone(),
            uid: first.uid,
        });
    }
    let other = Some(wanted.object).filter(|object| *object != wanted.volume);
    facts.note_if("to", other.filter(|object| id::is_of(object, Kind::Disk)));
    if let Some(copy) = copies::on_volume(db, wanted.volume).await? {
        facts.note("copy", copy.id.as_str());
        if let Origin::Clone { snapshot, .. } = &copy.origin {
            facts.note("snapshot", snapshot.as_str());
        }
        facts.note_if("file", copy.file().map(|file| file.path.as_str()));
        return Ok(Cause {
            // It goes on by itself, even while the call that began it is being answered.
            waits: false,
            reason: copy.call,
            request: Some(copy.request),
            uid: Some(copy.uid),
        });
    }
    Ok(match open.into_iter().next() {
        Some(intent) => Cause {
            waits: true,
            reason: intent.work.call().to_owned(),
            request: Some(intent.request),
            uid: Some(intent.uid),
        },
        None => Cause {
            waits: false,
            reason: RESTART.to_owned(),
            request: None,
            uid: None,
        },
    })
}
