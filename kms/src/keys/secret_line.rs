//! A line of text that is a secret: read byte by byte into locked memory, and nowhere else.

use std::io::{self, Read};

use sealblk_proto::locked::Locked;

use crate::limits;

/// The longest passphrase, and the end of a line. A longer line is cut here, and so found to be too long.
const ROOM: usize = limits::PASSPHRASE_BYTES_MOST + 2;

/// A line; wiped when dropped.
pub(crate) struct SecretLine {
    bytes: Locked<[u8; ROOM]>,
    length: usize,
    /// Whether there was no room for a byte: then it is too long, whatever is taken back of it, since that byte is not known.
    cut: bool,
}

impl SecretLine {
    /// An empty one.
    ///
    /// # Errors
    /// The kernel's, if memory cannot be locked.
    pub(crate) fn empty() -> io::Result<Self> {
        Ok(SecretLine {
            bytes: Locked::zeroed()?,
            length: 0,
            cut: false,
        })
    }

    /// Takes the first line of a source, without its end. Nothing behind it is read.
    ///
    /// # Errors
    /// The source's.
    pub(crate) fn take_first_of(&mut self, mut source: impl Read) -> io::Result<()> {
        while self.length < ROOM && !matches!(self.take_byte(&mut source)?, None | Some(b'\n')) {}
        while matches!(self.as_bytes().last(), Some(b'\n' | b'\r')) {
            self.remove_last();
        }
        Ok(())
    }

    /// Appends the source's next byte, and gives it back; none at its end.
    ///
    /// # Errors
    /// The source's.
    pub(crate) fn take_byte(&mut self, source: &mut impl Read) -> io::Result<Option<u8>> {
        let place = self.length.min(ROOM - 1);
        loop {
            match source.read(&mut self.bytes[place..=place]) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.cut |= self.length == ROOM;
        self.length = place + 1;
        Ok(Some(self.bytes[place]))
    }

    /// Takes back the last byte.
    pub(crate) fn remove_last(&mut self) {
        if let Some(last) = self.length.checked_sub(1) {
            self.bytes[last] = 0;
            self.length = last;
        }
    }

    /// Takes back the last character, of UTF-8; none of a line that was cut.
    pub(crate) fn remove_last_character(&mut self) {
        if self.cut {
            return;
        }
        let is_continued = |line: &Self| line.as_bytes().last().is_some_and(|byte| byte & 0xc0 == 0x80);
        while is_continued(self) {
            self.remove_last();
        }
        self.remove_last();
    }

    /// Takes back all of it.
    pub(crate) fn clear(&mut self) {
        while self.length > 0 {
            self.remove_last();
        }
        self.cut = false;
    }

    /// What it holds. It must not be copied elsewhere.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_of(source: impl Read) -> SecretLine {
        let mut line = SecretLine::empty().unwrap();
        line.take_first_of(source).unwrap();
        line
    }

    #[test]
    fn the_first_line_is_taken_without_its_end_and_nothing_behind_it() {
        for (text, line, rest) in [
            ("one\ntwo\n", "one", "two\n"),
            ("one\r\ntwo", "one", "two"),
            ("one", "one", ""),
            ("\n", "", ""),
        ] {
            let mut source = text.as_bytes();
            assert_eq!(first_of(&mut source).as_bytes(), line.as_bytes());
            assert_eq!(source, rest.as_bytes());
        }
        let long = [b'x'; ROOM + 100];
        let line = first_of(&long[..]);
        assert!(line.as_bytes().len() > limits::PASSPHRASE_BYTES_MOST);
    }

    #[test]
    fn what_is_taken_back_is_gone() {
        let mut source = "aä€\n".as_bytes();
        let mut line = first_of(&mut source);
        line.remove_last_character();
        assert_eq!(line.as_bytes(), "aä".as_bytes());
        line.remove_last_character();
        assert_eq!(line.as_bytes(), b"a");
        assert_eq!(line.bytes[1..], [0; ROOM - 1]);
        line.clear();
        line.remove_last_character();
        assert_eq!((line.as_bytes(), line.bytes[0]), (&b""[..], 0));
    }

    #[test]
    fn what_has_no_room_makes_a_line_too_long_until_all_of_it_is_taken_back() {
        let (mut line, mut keys) = (SecretLine::empty().unwrap(), std::io::repeat(b'x'));
        for _ in 0..ROOM + 10 {
            line.take_byte(&mut keys).unwrap();
        }
        for _ in 0..20 {
            // As the key that takes a character back does.
            line.take_byte(&mut keys).unwrap();
            line.remove_last();
            line.remove_last_character();
        }
        assert!(line.as_bytes().len() > limits::PASSPHRASE_BYTES_MOST);
        line.clear();
        line.take_byte(&mut keys).unwrap();
        line.remove_last_character();
        assert_eq!(line.as_bytes(), b"");
    }
}
