//! Puts the [lists](super::calls) into force (seccomp(2)).

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use sealblk_proto::causes::with_causes;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use super::calls::{self, List};
use super::kind::Kind;

/// None: this process is not confined, or the kernel cannot do so.
static PROGRAMS: OnceLock<Programs> = OnceLock::new();

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// The lists, as the kernel takes them.
#[derive(Debug)]
struct Programs {
    /// The programs of all threads. Of several programs the kernel takes the strictest answer (seccomp(2)), so that each of the
    /// `kinds` permits what these answer with an error.
    common: [BpfProgram; 2],
    kinds: Vec<(Kind, BpfProgram)>,
}

impl Programs {
    /// For this process; see [`super::Needs::directory`].
    fn new(directory: Option<BorrowedFd<'_>>) -> Result<Self, BackendError> {
        let error =
            |list: List, errno: i32| compile(list, SeccompAction::Allow, SeccompAction::Errno(errno as u32));
        let permit = |kind| {
            let list = calls::permitted(kind)?;
            let program = compile(list, SeccompAction::KillProcess, SeccompAction::Allow)?;
            Ok((kind, program))
        };
        Ok(Programs {
            common: [
                error(calls::refused(directory)?, libc::EACCES)?,
                error(calls::absent(), libc::ENOSYS)?,
            ],
            kinds: Kind::ALL
                .into_iter()
                .map(permit)
                .collect::<Result<_, BackendError>>()?,
        })
    }

    fn of(&self, kind: Kind) -> Option<&BpfProgram> {
        let (_, program) = self.kinds.iter().find(|(other, _)| *other == kind)?;
        Some(program)
    }
}

fn compile(list: List, otherwise: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(list.0, otherwise, listed, ARCHITECTURE)?.try_into()
}

/// From here on threads [narrow] themselves. See [`super::Needs::directory`].
pub(super) fn prepare(directory: Option<BorrowedFd<'_>>) -> Result<(), String> {
    rustix::thread::secure_computing_mode()
        .map_err(|errno| format!("the kernel does not have it: {errno}"))?;
    let programs = Programs::new(directory).map_err(|error| with_causes(&error))?;
    // This function is called once.
    let _ = PROGRAMS.set(programs);
    Ok(())
}

/// Restricts the calling thread to what its kind needs. To be called by each thread that is started, first of all; in a process
/// that is not confined it does nothing.
pub fn narrow(kind: Kind) {
    let program = PROGRAMS.get().and_then(|programs| programs.of(kind));
    // Without a list of its own the thread keeps the one of its parent, which has all that this one has.
    if let Some(Err(error)) = program.map(|program| apply_filter(program)) {
        log::warn!(
            "a thread keeps the list of who has started it: {}",
            with_causes(&error)
        );
    }
}

/// As [`narrow`], for a thread that inherits no list, since it is started before the [first one](super::Confined::filter) restricts
/// itself.
///
/// # Errors
/// The kernel's. Then the thread must not go on.
pub fn narrow_early(kind: Kind) -> io::Result<()> {
    let Some(programs) = PROGRAMS.get() else {
        return Ok(());
    };
    programs
        .common
        .iter()
        .chain(programs.of(kind))
        .try_for_each(|program| apply_filter(program).map_err(io::Error::other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_each_program() {
        // BPF_MAXINSNS.
        let programs = Programs::new(None).unwrap();
        for (kind, program) in &programs.kinds {
            assert!(program.len() <= 4096, "{kind:?}: {}", program.len());
            // A thread that ends with the test.
            let program = program.clone();
            std::thread::spawn(move || apply_filter(&program).unwrap())
                .join()
                .unwrap();
        }
    }
}
