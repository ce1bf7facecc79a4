//! What a program says of itself on request: completions for shells, and its man page.

use std::io::{self, Write};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

/// What a program can print in place of serving.
#[derive(Debug, Default, Args)]
pub struct About {
    /// Print completions for this shell
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,

    /// Print the man page, as in `--man | man -l -`
    #[arg(long, exclusive = true)]
    man: bool,
}

impl About {
    /// What `P` says of itself, if that is asked for.
    pub fn text<P: CommandFactory>(&self) -> io::Result<Option<Vec<u8>>> {
        let mut command: Command = P::command();
        let mut text = Vec::new();
        if let Some(shell) = self.completions {
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut text);
        } else if self.man {
            clap_mangen::Man::new(command).render(&mut text)?;
        } else {
            return Ok(None);
        }
        Ok(Some(text))
    }
}

/// Prints it. Whoever reads may have had enough.
pub fn print(text: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
