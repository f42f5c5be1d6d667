//! How the demo speaks: one line a step, with the seconds since its story began.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use harness::wait;
use jiff::Timestamp;

pub(crate) struct Told {
    began: Instant,
    began_at: Timestamp,
    colour: bool,
}

impl Told {
    pub(crate) fn new() -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            began: Instant::now(),
            began_at: Timestamp::now(),
            colour,
        }
    }

    /// A heading; the clock starts anew.
    pub(crate) fn title(&mut self, title: &str) {
        self.began = Instant::now();
        self.began_at = Timestamp::now();
        let (bold, plain) = if self.colour {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        self.say(&format!("\n{bold}{title}{plain}"));
    }

    /// Something happened.
    pub(crate) fn step(&mut self, who: &str, what: &str) {
        self.line(self.began.elapsed().as_secs_f64(), who, what);
    }

    fn line(&mut self, seconds: f64, who: &str, what: &str) {
        let (dim, plain) = if self.colour {
            ("\x1b[2m", "\x1b[0m")
        } else {
            ("", "")
        };
        self.say(&format!("{dim}{seconds:7.1} s{plain}  {who:<8} {what}"));
    }

    /// Something that happened at a time that another program wrote down.
    pub(crate) fn at(&mut self, at: &str, who: &str, what: &str) {
        let since = at
            .parse::<Timestamp>()
            .map_or(0.0, |at| at.duration_since(self.began_at).as_secs_f64());
        self.line(since, who, what);
    }

    /// Lines that belong to the step before.
    pub(crate) fn text(&mut self, text: &str) {
        for line in text.lines() {
            self.say(&format!("                     {line}"));
        }
    }

    /// Seconds since the title.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Asks the person at the terminal.
    pub(crate) fn ask(&mut self, question: &str, yes: bool) -> Result<()> {
        if yes {
            self.step("person", &format!("{question} yes (--yes)"));
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            bail!("{question} There is no terminal to ask on: say --yes");
        }
        write!(io::stdout(), "\n  {question} [y/N] ")?;
        io::stdout().flush()?;
        match answered() {
            Some(answer) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
            _ => bail!("not approved, so nothing was changed"),
        }
    }

    fn say(&mut self, line: &str) {
        // With standard output closed there is nobody to tell; the lab still cleans up.
        writeln!(io::stdout(), "{line}").ok();
    }
}

/// A line from the terminal; none on Ctrl-C. Read beside, for a read of a terminal does not end by itself.
fn answered() -> Option<String> {
    let (said, hears) = sync_channel(1);
    std::thread::spawn(move || {
        let mut answer = String::new();
        if io::stdin().read_line(&mut answer).is_ok() {
            // Nobody hears an answer that comes after Ctrl-C.
            said.send(answer).ok();
        }
    });
    while !wait::interrupted() {
        match hears.recv_timeout(Duration::from_millis(100)) {
            Ok(answer) => return Some(answer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    None
}
