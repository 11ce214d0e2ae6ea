//! The states of a master key, what leads from one to another, and what a key can be used for (rules K11, A05, A06).

use crate::error::{Code, Error, Result};

/// Rule K11. The catalogue and the API have the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
pub(crate) enum KeyState {
    /// Can be used.
    Enabled,
    /// Cannot be used until it is enabled.
    Disabled,
    /// The key's material has not been imported yet (rule K10).
    PendingImport,
    /// Is destroyed on its deletion day, unless that is cancelled.
    PendingDeletion,
    /// Has no material any more: what it protected cannot be read.
    Destroyed,
}

/// What happens to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Enable,
    Disable,
    Import,
    ScheduleDeletion,
    /// With or without material: a key that never had any waits for it again.
    CancelDeletion {
        has_material: bool,
    },
    Destroy,
    Rotate,
}

impl KeyState {
    /// As the catalogue and the API have it.
    pub(crate) fn name(self) -> &'static str {
        let shown = match self {
            KeyState::Enabled => sealblk_api::KeyState::Enabled,
            KeyState::Disabled => sealblk_api::KeyState::Disabled,
            KeyState::PendingImport => sealblk_api::KeyState::PendingImport,
            KeyState::PendingDeletion => sealblk_api::KeyState::PendingDeletion,
            KeyState::Destroyed => sealblk_api::KeyState::Destroyed,
        };
        shown.name()
    }

    /// The state after `event`, if that can happen in this one.
    fn after(self, event: Event) -> Option<KeyState> {
        use KeyState::{Destroyed, Disabled, Enabled, PendingDeletion, PendingImport};
        Some(match (self, event) {
            (Enabled | Disabled, Event::Enable) => Enabled,
            (Enabled | Disabled, Event::Disable) => Disabled,
            (PendingImport, Event::Import) => Enabled,
            // The key's own material is imported once more.
            (Enabled | Disabled, Event::Import) => self,
            (Enabled | Disabled | PendingImport, Event::ScheduleDeletion) => PendingDeletion,
            (PendingDeletion, Event::CancelDeletion { has_material: true }) => Disabled,
            (PendingDeletion, Event::CancelDeletion { has_material: false }) => PendingImport,
            (PendingDeletion, Event::Destroy) => Destroyed,
            (Enabled, Event::Rotate) => Enabled,
            _ => return None,
        })
    }

    /// What to do so that the key can be used again.
    fn remedy(self, key: &str) -> String {
        match self {
            KeyState::Enabled => "it is usable".to_owned(),
            KeyState::Disabled => format!("run `sealctl key enable {key}` first"),
            KeyState::PendingImport => {
                format!(
                    "import its material first, with `sealctl key import-params {key}` and `sealctl key import`"
                )
            }
            KeyState::PendingDeletion => {
                format!("run `sealctl key cancel-deletion {key}` and `sealctl key enable {key}` first")
            }
            KeyState::Destroyed => "what it protected can never be read again; use another key".to_owned(),
        }
    }
}

/// A key at the moment at which something is to be done with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyNow<'a> {
    pub(crate) id: &'a str,
    pub(crate) state: KeyState,
}

impl KeyNow<'_> {
    /// The state after `event`.
    ///
    /// # Errors
    /// [`Code::KeyStateInvalid`] (rule K11).
    pub(crate) fn after(self, event: Event) -> Result<KeyState> {
        self.state.after(event).ok_or_else(|| {
            let what = match event {
                Event::Enable => "be enabled",
                Event::Disable => "be disabled",
                Event::Import => "be given material",
                Event::ScheduleDeletion => "be scheduled for deletion",
                Event::CancelDeletion { .. } => "have its deletion cancelled",
                Event::Destroy => "be destroyed",
                Event::Rotate => "be rotated",
            };
            let text = match (event, self.state) {
                (
                    Event::CancelDeletion { .. },
                    KeyState::Enabled | KeyState::Disabled | KeyState::PendingImport,
                ) => {
                    format!(
                        "key {} is {} and is not going to be deleted",
                        self.id,
                        self.state.name()
                    )
                }
                _ => format!(
                    "key {} is {} and cannot {what}: {}",
                    self.id,
                    self.state.name(),
                    self.state.remedy(self.id)
                ),
            };
            Error::new(Code::KeyStateInvalid, text)
        })
    }

    /// Whether the key may be used for something new (rule A05). A refusal during the window before its deletion is an
    /// alarm (rule K11).
    ///
    /// # Errors
    /// [`Code::KeyNotUsable`].
    pub(crate) fn usable(self) -> Result<()> {
        if self.state == KeyState::Enabled {
            return Ok(());
        }
        let text = format!(
            "key {} is {}: {}",
            self.id,
            self.state.name(),
            self.state.remedy(self.id)
        );
        let refusal = Error::new(Code::KeyNotUsable, text);
        Err(match self.state {
            KeyState::PendingDeletion => refusal.with_alarm(self.id),
            _ => refusal,
        })
    }

    /// Whether what is attached may be served (rule A06): as long as the key has its material.
    ///
    /// # Errors
    /// [`Code::KeyNotUsable`].
    pub(crate) fn serves(self) -> Result<()> {
        match self.state {
            KeyState::Enabled | KeyState::Disabled | KeyState::PendingDeletion => Ok(()),
            KeyState::PendingImport | KeyState::Destroyed => self.usable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_k11_every_state_and_every_event() {
        use KeyState::{Destroyed, Disabled, Enabled, PendingDeletion, PendingImport};
        let states = [Enabled, Disabled, PendingImport, PendingDeletion, Destroyed];
        let no = None;
        let table: [(Event, [Option<KeyState>; 5]); 8] = [
            (Event::Enable, [Some(Enabled), Some(Enabled), no, no, no]),
            (Event::Disable, [Some(Disabled), Some(Disabled), no, no, no]),
            (
                Event::Import,
                [Some(Enabled), Some(Disabled), Some(Enabled), no, no],
            ),
            (
                Event::ScheduleDeletion,
                [
                    Some(PendingDeletion),
                    Some(PendingDeletion),
                    Some(PendingDeletion),
                    no,
                    no,
                ],
            ),
            (
                Event::CancelDeletion { has_material: true },
                [no, no, no, Some(Disabled), no],
            ),
            (
                Event::CancelDeletion { has_material: false },
                [no, no, no, Some(PendingImport), no],
            ),
            (Event::Destroy, [no, no, no, Some(Destroyed), no]),
            (Event::Rotate, [Some(Enabled), no, no, no, no]),
        ];
        for (event, expected) in table {
            for (state, expected) in states.into_iter().zip(expected) {
                let now = KeyNow { id: "key-1", state };
                assert_eq!(now.after(event).ok(), expected, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn rule_a05_a06_what_a_key_can_be_used_for() {
        use KeyState::{Destroyed, Disabled, Enabled, PendingDeletion, PendingImport};
        for (state, usable, serves, alarm) in [
            (Enabled, true, true, false),
            (Disabled, false, true, false),
            (PendingImport, false, false, false),
            (PendingDeletion, false, true, true),
            (Destroyed, false, false, false),
        ] {
            let now = KeyNow { id: "key-1", state };
            let refusal = now.usable().err();
            assert_eq!(
                (refusal.is_none(), now.serves().is_ok()),
                (usable, serves),
                "{state:?}"
            );
            assert_eq!(
                refusal
                    .and_then(|error| error.alarm().map(str::to_owned))
                    .is_some(),
                alarm
            );
        }
    }
}
