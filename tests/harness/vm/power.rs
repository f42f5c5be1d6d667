//! Power cuts for real: a guest applies a change, its power fails at some write or flush of its disk, it boots again,
//! `aizen recover` runs before its network comes up, and what is there is held against what may be there.

mod bench;
mod change;
mod judge;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use bench::Bench;
pub(super) use change::FILES;
pub use change::{Ending, Kind};
pub use judge::Moment;

use super::disk::Spared;
use super::kernel::Kernel;
use crate::lab::draw::Draw;
use crate::wait;

/// Longest change: many times what it takes a guest without KVM on a busy machine.
const CHANGE: Duration = Duration::from_secs(240);
/// One recovery in so many is cut, too.
const RECOVERIES_CUT: u64 = 4;
/// Writes and flushes of a change and of a boot as long as none was counted.
const FIRST_GUESS: u64 = 60;

/// A file system on the guest's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4 as mke2fs(8) makes it.
    Ext4,
    /// f2fs, for flash.
    F2fs,
}

/// What a soak does.
#[derive(Debug)]
pub struct Soak<'a> {
    /// The guest's kernel.
    pub kernel: &'a Kernel,
    /// Its disk's file system.
    pub file_system: FileSystem,
    /// Power cuts.
    pub rounds: u32,
    /// What kinds, endings and moments are drawn from.
    pub seed: u64,
    /// What a cut leaves whole or not at all, bytes.
    pub unit: u64,
}

/// From where a round counts writes and flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum From {
    /// `aizen apply` starts.
    Start,
    /// The change is admitted.
    Admission,
}

/// One power cut and what came of it.
#[derive(Clone, Debug)]
pub struct Round {
    /// Which, from 1.
    pub number: u32,
    /// What was changed.
    pub kind: Kind,
    /// How the change was to end.
    pub ending: Ending,
    /// The last thing that the journal knew.
    pub moment: Moment,
    /// The write or flush at which the power failed, of those since the change began or, mostly, was admitted; 0 if it
    /// had ended.
    pub event: u64,
    /// What the disk's cache lost.
    pub spared: Spared,
    /// Cuts during the recovery.
    pub again: u32,
    /// The check before a mount had something to repair.
    pub repaired: bool,
    /// How the change ended in the end.
    pub end: String,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Round {
    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let mark = if self.violations.is_empty() {
            "ok  "
        } else {
            "BAD "
        };
        let mut line = format!(
            "{mark}{:>4}  {:<22} {:<12} cut at {:>3}, journal at {:<16} {} of {} cached units kept, {} more cuts: {}{}",
            self.number,
            self.kind.name(),
            self.ending.name(),
            self.event,
            self.moment.name(),
            self.spared.kept,
            self.spared.cached,
            self.again,
            self.end,
            if self.repaired {
                ", after fsck repaired the file system"
            } else {
                ""
            },
        );
        for violation in &self.violations {
            line.push_str(&format!("\n      {violation}"));
        }
        line
    }
}

/// Runs a soak and tells each round.
///
/// # Errors
/// If the bed itself breaks: a guest that does not boot, a script that does not run.
pub fn run(soak: &Soak<'_>, folder: &Path, tell: &mut dyn FnMut(&Round)) -> Result<Vec<Round>> {
    let mut draw = Draw::new(soak.seed);
    let mut bench = Bench::lay_out(soak, folder)?;
    let mut lengths = BTreeMap::new();
    let mut rounds = Vec::new();
    bench.boot(None)?;
    bench.wait_booted()?;
    for number in 1..=soak.rounds {
        if wait::interrupted() {
            break;
        }
        let round = match one(&mut bench, number, &mut draw, &mut lengths) {
            // What was done until then counts.
            Err(_) if wait::interrupted() => break,
            round => round.with_context(|| format!("round {number} of seed {}", soak.seed))?,
        };
        tell(&round);
        rounds.push(round);
    }
    Ok(rounds)
}

fn one(
    bench: &mut Bench,
    number: u32,
    draw: &mut Draw,
    lengths: &mut BTreeMap<(&'static str, From), u64>,
) -> Result<Round> {
    let (kind, ending) = (Kind::draw(draw), Ending::draw(draw));
    let before = bench.state()?;
    let change = bench.prepare(number, kind, ending, &before)?;
    // Before it is admitted there is nothing to lose: most cuts come afterwards.
    let from = if draw.below(5) == 0 {
        From::Start
    } else {
        From::Admission
    };
    let length = lengths.entry((ending.name(), from)).or_insert(FIRST_GUESS);
    // A few past the end: nothing that was promised may be lost then either.
    let at = 1 + draw.below(*length + 4);
    let told = bench.change_until_cut(&change, from, at, CHANGE)?;
    let event = match told {
        Some(_) => 0,
        None => at,
    };
    *length = match told {
        Some(_) => bench.events(),
        None => (*length).max(at),
    };
    let spared = bench.power_off_and_on(draw)?;
    let mut again = 0;
    let mut moment = None;
    let mut repaired = false;
    loop {
        let cut =
            (draw.below(RECOVERIES_CUT) == 0 && again < 2).then(|| 1 + draw.below(FIRST_GUESS));
        bench.boot(cut)?;
        let up = bench.wait_booted()?;
        moment = moment.or_else(|| bench.moment(&change));
        if up {
            repaired |= bench.was_repaired()?;
            break;
        }
        again += 1;
        bench.power_off_and_on(draw)?;
    }
    let (end, violations) = judge::judge(bench, &before, &change, told)?;
    Ok(Round {
        number,
        kind,
        ending,
        moment: moment.unwrap_or(Moment::Before),
        event,
        spared,
        again,
        repaired,
        end,
        violations,
    })
}

/// A Markdown table: cuts by moment.
#[must_use]
pub fn table(rounds: &[Round]) -> String {
    let mut by_moment: BTreeMap<Moment, [u32; 5]> = BTreeMap::new();
    for round in rounds {
        let row = by_moment.entry(round.moment).or_default();
        row[0] += 1;
        row[1] += round.again;
        row[2] += u32::from(round.end == "confirmed");
        row[3] += u32::from(round.end != "confirmed");
        row[4] += u32::from(!round.violations.is_empty());
    }
    let mut table = String::from(
        "| journal at the cut | cuts | cuts of the recovery | kept | as before | violations |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    let mut sums = [0; 5];
    for (moment, row) in &by_moment {
        table.push_str(&format!("| {} |", moment.name()));
        for (sum, number) in sums.iter_mut().zip(row) {
            *sum += number;
            table.push_str(&format!(" {number} |"));
        }
        table.push('\n');
    }
    let sums = sums.map(|sum| sum.to_string()).join(" | ");
    table.push_str(&format!("| all | {sums} |\n"));
    table
}
