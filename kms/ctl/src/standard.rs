//! `-` for a file: standard input or output, opened by this process with its user's rights and passed to the daemon.
//!
//! What is no file or block device, such as a pipe, goes through a file without a name in the directory for temporary files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use rustix::fs::OFlags;

use crate::failure::Failure;

/// Names standard input or output.
pub(crate) const STANDARD: &str = "-";

/// Most bytes that are copied at a time.
const STEP_BYTES: usize = 1 << 20;

fn input_failed(error: io::Error) -> Failure {
    Failure::Standard("input", error)
}

fn output_failed(error: io::Error) -> Failure {
    Failure::Standard("output", error)
}

/// What is to be read: standard input.
///
/// # Errors
/// Of reading it, or of the temporary file.
pub(crate) fn input() -> Result<File, Failure> {
    let stdin = io::stdin();
    if let Some(file) = opened(&stdin, false).map_err(input_failed)? {
        return Ok(file);
    }
    let mut file = temporary()?;
    copy(&mut stdin.lock(), &mut file).map_err(input_failed)?;
    Ok(file)
}

/// What is to be written.
pub(crate) enum Output {
    /// Standard output itself.
    Itself(File),
    /// A file that is copied there afterwards.
    Spooled(File),
}

/// Standard output.
///
/// # Errors
/// Of the temporary file.
pub(crate) fn output() -> Result<Output, Failure> {
    match opened(&io::stdout(), true).map_err(output_failed)? {
        Some(file) => Ok(Output::Itself(file)),
        None => temporary().map(Output::Spooled),
    }
}

impl Output {
    /// To be passed.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn file(&self) -> Result<File, Failure> {
        let (Output::Itself(file) | Output::Spooled(file)) = self;
        file.try_clone().map_err(output_failed)
    }

    pub(crate) fn is_spooled(&self) -> bool {
        matches!(self, Output::Spooled(_))
    }

    /// All has been written to the file.
    ///
    /// # Errors
    /// Of writing to standard output.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Output::Spooled(mut file) = self else {
            return Ok(());
        };
        let mut stdout = io::stdout().lock();
        // Who has written to it may have done so directly, which a reader would have to be prepared for.
        let flags = rustix::fs::fcntl_getfl(&file).map_err(|errno| output_failed(errno.into()))?;
        rustix::fs::fcntl_setfl(&file, flags - OFlags::DIRECT)
            .map_err(|errno| output_failed(errno.into()))?;
        let written = file
            .rewind()
            .and_then(|()| copy(&mut file, &mut stdout))
            .and_then(|()| stdout.flush());
        written.map_err(output_failed)
    }
}

/// A file or block device, opened once more: how the daemon sets its descriptor is not the shell's affair. A shell opens
/// what it writes to for writing alone, and all that is written is compared.
fn opened(stream: &impl AsFd, write: bool) -> io::Result<Option<File>> {
    let own = File::from(stream.as_fd().try_clone_to_owned()?);
    let kind = own.metadata()?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Ok(None);
    }
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&own));
    let again = OpenOptions::new().read(true).write(write).open(path);
    match again {
        // It may be open to this process, and yet not to its user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !write => Ok(Some(own)),
        again => again.map(Some),
    }
}

fn temporary() -> Result<File, Failure> {
    let directory = std::env::temp_dir();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::TMPFILE.bits().cast_signed())
        .open(&directory);
    opened.map_err(|error| Failure::file(&directory, error))
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => to.write_all(&buffer[..bytes])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
