//! `aizen top`: links, probes and findings, live on the whole screen.

mod draw;
mod state;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use aizen_protocol::record::{Record, Trigger};
use anyhow::{Context as _, bail};
use clap::Args;
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::state::State;
use super::look::Sample;
use crate::analyze;
use crate::collect::{Collector, Settings};

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Seconds between two readings of counters
    #[arg(long, short = 'd', value_name = "SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=60))]
    delay: u32,
}

/// Shows until `q` or Ctrl-C.
///
/// # Errors
/// If this is no terminal, or it can't be drawn on.
pub(super) async fn run(args: &TopArgs, settings: Settings) -> anyhow::Result<ExitCode> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!(
            "'aizen top' needs a terminal; 'aizen links --watch' and 'aizen perf --watch' do not"
        );
    }
    let mut looking = Collector::new(settings.clone());
    let (rounds, mut judged) = mpsc::channel(1);
    // Probes take seconds: they run beside the readings, and end with this command.
    let probing = tokio::spawn(probe(settings, rounds));
    let mut terminal = ratatui::try_init().context("can't draw on this terminal")?;
    let mut keys = EventStream::new();
    let mut tick = interval(Duration::from_secs(args.delay.into()));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = State::default();
    let shown = loop {
        if let Err(error) = terminal.draw(|frame| draw::draw(frame, &state)) {
            break Err(error).context("can't draw on this terminal");
        }
        tokio::select! {
            _ = tick.tick(), if !state.paused => state.read(Sample::take(&mut looking).await),
            Some(records) = judged.recv() => {
                let verdict = analyze::records(records.clone());
                state.judge(&records, verdict);
            }
            event = keys.next() => match event {
                Some(Ok(event)) => if takes_leave(&mut state, &event) { break Ok(()) },
                Some(Err(error)) => break Err(error).context("can't read the keyboard"),
                None => break Ok(()),
            },
        }
    };
    probing.abort();
    ratatui::restore();
    shown.map(|()| ExitCode::SUCCESS)
}

/// Rounds one after the other; the last few together are what the expert judges.
async fn probe(settings: Settings, rounds: mpsc::Sender<Vec<Record>>) {
    let mut collector = Collector::new(settings);
    let mut history: Vec<Vec<Record>> = Vec::new();
    loop {
        let observations = collector.round(Trigger::Tick, 0).await;
        let records = observations.iter().map(|o| Record::clone(&o.local()));
        history.push(records.collect());
        if history.len() > REMEMBERED {
            history.remove(0);
        }
        if rounds.send(history.concat()).await.is_err() {
            return;
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// True if the person wants to leave.
fn takes_leave(state: &mut State, event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('q') => return true,
        // Escape closes the help first.
        KeyCode::Esc if !state.help => return true,
        KeyCode::Esc => state.help = false,
        KeyCode::Char('?' | 'h') => state.help = !state.help,
        KeyCode::Char('p' | ' ') => state.paused = !state.paused,
        KeyCode::Down | KeyCode::Char('j') => state.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => state.scroll(-1),
        KeyCode::PageDown => state.scroll(10),
        KeyCode::PageUp => state.scroll(-10),
        _ => {}
    }
    false
}

/// As many rounds as the daemon judges together.
const REMEMBERED: usize = 6;
const BETWEEN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;

    use super::*;

    fn press(state: &mut State, code: KeyCode) -> bool {
        takes_leave(state, &Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    #[test]
    fn escape_closes_the_help_before_it_leaves() {
        let mut state = State::default();
        assert!(!press(&mut state, KeyCode::Char('?')));
        assert!(state.help);
        assert!(!press(&mut state, KeyCode::Esc));
        assert!(!state.help);
        assert!(press(&mut state, KeyCode::Esc));
        assert!(press(&mut state, KeyCode::Char('q')));
    }

    #[test]
    fn a_pause_ends_with_the_same_key() {
        let mut state = State::default();
        press(&mut state, KeyCode::Char('p'));
        assert!(state.paused);
        press(&mut state, KeyCode::Char('p'));
        assert!(!state.paused);
    }
}
