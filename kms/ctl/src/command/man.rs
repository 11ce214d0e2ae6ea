//! `sealctl man`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use serde_json::json;

use crate::failure::Failure;
use crate::output::{Answer, Block};

/// Writes manual pages.
#[derive(Args, Debug)]
#[command(after_help = "\
No daemon is asked. Pages of the same names are replaced.

Example:
  sealctl man /usr/local/share/man && man sealctl-disk-create")]
pub(crate) struct Man {
    /// Directory of manual pages: those of sealctl and each of its commands come into man1, those of sealblk-kms into man8.
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(self, sealctl: Command) -> Result<Answer, Failure> {
        let mut pages = write(sealctl, &self.directory, "1")?;
        pages.extend(write(
            sealblk_api::arguments::Cli::command(),
            &self.directory,
            "8",
        )?);
        let text = format!("{} manual pages are in {}", pages.len(), self.directory.display());
        Answer::new(&json!({ "pages": pages }), vec![Block::Line(text)])
    }
}

/// Writes the pages of a program and of its commands into the section's directory; their paths.
fn write(program: Command, directory: &Path, section: &str) -> Result<Vec<String>, Failure> {
    let directory = directory.join(format!("man{section}"));
    let failed = |path: &Path, source: io::Error| Failure::File {
        path: path.display().to_string(),
        source,
    };
    fs::create_dir_all(&directory).map_err(|error| failed(&directory, error))?;
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut paths = Vec::new();
    let mut commands = vec![program];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        let page = clap_mangen::Man::new(command).section(section);
        let path = directory.join(page.get_filename());
        fs::write(&path, text_of(&page).map_err(|error| failed(&path, error))?)
            .map_err(|error| failed(&path, error))?;
        paths.push(path.display().to_string());
    }
    Ok(paths)
}

fn text_of(page: &clap_mangen::Man) -> io::Result<String> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    // What follows the options in `--help` has no name of its own there.
    Ok(String::from_utf8_lossy(&text).replace("\n.SH EXTRA\n", "\n.SH NOTES\n"))
}
