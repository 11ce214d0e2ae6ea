//! A question on the terminal whose answer is not shown, and lies in locked memory.
//!
//! The keys that end or stop a program come as bytes meanwhile, so that the terminal is as it was before they do so; and so it is
//! before another's signal ends the program.

use std::fs::File;
use std::io::{self, Write};

use rustix::process::{Signal, kill_current_process_group};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use sealblk_proto::terminal::Restored;

use crate::keys::secret_line::SecretLine;

/// Asks on the terminal that the process belongs to, for the whole of a line.
///
/// # Errors
/// That there is none, or its own; [`io::ErrorKind::Interrupted`] if the answer was a key that should have ended the process.
pub(crate) fn ask(question: &str, line: &mut SecretLine) -> io::Result<()> {
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    loop {
        line.clear();
        match answer(&terminal, question, line)? {
            Answer::Line => return Ok(()),
            Answer::Signal(signal) => {
                kill_current_process_group(signal)?;
                if signal != Signal::TSTP {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
        }
    }
}

enum Answer {
    Line,
    /// What the terminal would have sent to the processes in its foreground.
    Signal(Signal),
}

fn answer(mut terminal: &File, question: &str, line: &mut SecretLine) -> io::Result<Answer> {
    let silent = Silent::new(terminal)?;
    terminal.write_all(question.as_bytes())?;
    let answer = read(terminal, &silent.before, line);
    drop(silent);
    terminal.write_all(b"\n")?;
    answer
}

fn read(mut terminal: &File, before: &Termios, line: &mut SecretLine) -> io::Result<Answer> {
    loop {
        let Some(byte) = line.take_byte(&mut terminal)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        // A key that is switched off has the code 0.
        let is = |key| byte != 0 && before.special_codes[key] == byte;
        let signal = if is(SpecialCodeIndex::VINTR) {
            Signal::INT
        } else if is(SpecialCodeIndex::VQUIT) {
            Signal::QUIT
        } else if is(SpecialCodeIndex::VSUSP) {
            Signal::TSTP
        } else {
            if byte == b'\n' || byte == b'\r' || is(SpecialCodeIndex::VEOF) {
                line.remove_last();
                return Ok(Answer::Line);
            } else if is(SpecialCodeIndex::VERASE) || byte == 0x08 || byte == 0x7f {
                line.remove_last();
                line.remove_last_character();
            } else if is(SpecialCodeIndex::VKILL) {
                line.clear();
            }
            continue;
        };
        return Ok(Answer::Signal(signal));
    }
}

/// A terminal that shows nothing and gives every key as a byte, until this is dropped.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
    _restored: Restored,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let restored = Restored::new(terminal)?;
        let mut silent = before.clone();
        silent
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Silent {
            terminal,
            before,
            _restored: restored,
        })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
