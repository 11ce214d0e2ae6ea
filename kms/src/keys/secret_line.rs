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
        })
    }

    /// The first line of a source, without its end. Nothing behind it is read.
    ///
    /// # Errors
    /// The source's, and as [`SecretLine::empty`].
    pub(crate) fn first_of(mut source: impl Read) -> io::Result<Self> {
        let mut line = Self::empty()?;
        while line.length < ROOM && !matches!(line.take_byte(&mut source)?, None | Some(b'\n')) {}
        while matches!(line.as_bytes().last(), Some(b'\n' | b'\r')) {
            line.remove_last();
        }
        Ok(line)
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

    /// Takes back the last character, of UTF-8.
    pub(crate) fn remove_last_character(&mut self) {
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
    }

    /// What it holds. It must not be copied elsewhere.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_taken_without_its_end_and_nothing_behind_it() {
        for (text, line, rest) in [
            ("one\ntwo\n", "one", "two\n"),
            ("one\r\ntwo", "one", "two"),
            ("one", "one", ""),
            ("\n", "", ""),
        ] {
            let mut source = text.as_bytes();
            assert_eq!(
                SecretLine::first_of(&mut source).unwrap().as_bytes(),
                line.as_bytes()
            );
            assert_eq!(source, rest.as_bytes());
        }
        let long = [b'x'; ROOM + 100];
        let line = SecretLine::first_of(&long[..]).unwrap();
        assert!(line.as_bytes().len() > limits::PASSPHRASE_BYTES_MOST);
    }

    #[test]
    fn what_is_taken_back_is_gone() {
        let mut source = "aä€\n".as_bytes();
        let mut line = SecretLine::first_of(&mut source).unwrap();
        line.remove_last_character();
        assert_eq!(line.as_bytes(), "aä".as_bytes());
        line.remove_last_character();
        assert_eq!(line.as_bytes(), b"a");
        assert_eq!(line.bytes[1..], [0; ROOM - 1]);
        line.clear();
        line.remove_last_character();
        assert_eq!((line.as_bytes(), line.bytes[0]), (&b""[..], 0));
    }
}
