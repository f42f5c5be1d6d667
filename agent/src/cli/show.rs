//! How effects, outcomes and lists look on a terminal.

use std::io::{self, Write};

use aizen_protocol::control::ChangeSummary;
use aizen_protocol::effect::{Effect, Lasts, ScriptEnd, ScriptRun};
use aizen_protocol::outcome::{End, Isolation, Outcome, Stage};
use aizen_protocol::package::manifest::Risk;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

/// Writes one JSON object and a newline, in one piece: standard output would make a call of each line.
pub(super) fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    out.write_all(&text)
}

/// What a script does to the device, as a person reads it before saying yes.
pub(super) fn effect(out: &mut impl Write, effect: &Effect) -> io::Result<()> {
    writeln!(
        out,
        "Risk: {}{}",
        risk(effect.risk),
        if effect.management_path {
            " (touches the way to the orchestrator)"
        } else {
            ""
        }
    )?;
    if effect.changes.is_empty() {
        writeln!(out, "Effect: nothing changes")?;
    }
    for change in &effect.changes {
        let kind = serde_json::to_value(change.kind)?;
        writeln!(
            out,
            "\n{} {} (owner: {}, lasts {})",
            kind.as_str().unwrap_or("object"),
            change.object,
            change.owner,
            lasts(change.lasts)
        )?;
        change
            .diff
            .0
            .lines()
            .try_for_each(|line| writeln!(out, "    {line}"))?;
        writeln!(out, "    undo: {}", change.inverse)?;
    }
    for text in &effect.lock_outs {
        writeln!(out, "\nLOCK-OUT: {text}")?;
    }
    for text in &effect.undeclared {
        writeln!(out, "not declared, so it would not stay: {text}")?;
    }
    for text in &effect.not_rehearsed {
        writeln!(out, "not rehearsed: {text}")?;
    }
    for text in &effect.irreversible {
        writeln!(out, "can't be undone: {text}")?;
    }
    script(out, &effect.script)
}

fn script(out: &mut impl Write, run: &ScriptRun) -> io::Result<()> {
    let end = match run.end {
        ScriptEnd::Exited(0) => "succeeded".to_owned(),
        ScriptEnd::Exited(code) => format!("ended with exit status {code}"),
        ScriptEnd::Signalled(signal) => format!("was killed by signal {signal}"),
        ScriptEnd::TimedOut => "ran out of time".to_owned(),
        ScriptEnd::NotStarted => "was not started".to_owned(),
    };
    writeln!(out, "\nThe script {end} after {} ms", run.took_ms)?;
    run.output
        .0
        .lines()
        .try_for_each(|line| writeln!(out, "    | {line}"))
}

/// How a package ended.
pub(super) fn outcome(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let end = match outcome.end {
        End::Refused => "Refused",
        End::Confirmed => "Confirmed: the change is kept",
        End::RolledBack => "Rolled back: the device is as before",
        End::RollbackIncomplete => {
            "ROLLBACK INCOMPLETE: see what is named below, then 'aizen changes clear'"
        }
        End::Diagnosed => "Done: nothing was changed",
        End::Interrupted => "Interrupted before anything was touched",
    };
    writeln!(out, "{end}")?;
    if let Some(reason) = outcome.reason {
        writeln!(out, "Reason: {reason}")?;
    }
    if !outcome.detail.0.is_empty() {
        writeln!(out, "{}", outcome.detail)?;
    }
    for probe in &outcome.probes {
        let word = |held: bool| if held { "holds" } else { "fails" };
        let after = probe.after.map_or("not tried", word);
        writeln!(
            out,
            "probe {}: before {}, after {after} ({})",
            probe.probe,
            word(probe.before),
            probe.detail
        )?;
    }
    for object in &outcome.not_restored {
        writeln!(out, "not restored: {object}")?;
    }
    if outcome.effect_as_approved() == Some(false) {
        writeln!(out, "The effect was not the approved one")?;
    }
    Ok(())
}

/// A list of changes.
pub(super) fn changes(out: &mut impl Write, changes: &[ChangeSummary]) -> io::Result<()> {
    if changes.is_empty() {
        return writeln!(out, "No changes");
    }
    writeln!(
        out,
        "{:<38} {:<20} {:<26} INTENT",
        "CHANGE", "STAGE", "SINCE"
    )?;
    for change in changes {
        let since = change
            .steps
            .last()
            .map_or_else(String::new, |step| time(step.at));
        writeln!(
            out,
            "{:<38} {:<20} {since:<26} {}",
            change.change.as_str(),
            stage(change.stage),
            change.intent
        )?;
    }
    Ok(())
}

/// The sandbox's vector.
pub(super) fn isolation(out: &mut impl Write, isolation: &Isolation) -> io::Result<()> {
    writeln!(out, "Isolation level {} of 4", isolation.level)?;
    for layer in &isolation.layers {
        let word = if layer.enforced { "yes" } else { "NO" };
        writeln!(out, "  {word:<4} {:<18} {}", layer.name, layer.detail)?;
    }
    Ok(())
}

/// A moment: UTC, and local time where it differs.
pub(super) fn time(at: Timestamp) -> String {
    let local = at.to_zoned(TimeZone::system());
    let utc = at.strftime("%Y-%m-%d %H:%M:%SZ");
    if local.offset().is_zero() {
        utc.to_string()
    } else {
        format!("{utc} ({})", local.strftime("%H:%M:%S %Z"))
    }
}

/// A stage's name as in JSON.
pub(super) fn stage(stage: Stage) -> String {
    serde_json::to_value(stage)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::None => "none",
        Risk::Low => "low",
        Risk::Medium => "medium",
        Risk::High => "HIGH",
    }
}

fn lasts(lasts: Lasts) -> &'static str {
    match lasts {
        Lasts::UntilReboot => "until reboot",
        Lasts::UntilRenewal => "until renewal",
        Lasts::ForGood => "for good",
    }
}
