//! What may be after a power cut, and what is.

use anyhow::Result;
use serde_json::Value;

use super::bench::{Bench, Prepared, State};

/// The last thing that the journal knew of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing yet.
    Before,
    /// It is admitted.
    Admitted,
    /// The state before is stored.
    Snapshotted,
    /// The deadline runs.
    Armed,
    /// The script runs, nothing is done yet.
    Started,
    /// An operation is done, or about to be.
    Acting,
    /// The script ended.
    Applied,
    /// The confirmation is waited for.
    Probing,
    /// It is kept.
    Confirmed,
    /// It is being undone.
    RollbackBegan,
    /// It is undone.
    RolledBack,
    /// It is undone in part.
    RollbackIncomplete,
    /// It ended before it touched anything.
    Interrupted,
    /// Its outcome is stored.
    Reported,
}

const MOMENTS: [(Moment, &str); 14] = [
    (Moment::Before, "nothing"),
    (Moment::Admitted, "admitted"),
    (Moment::Snapshotted, "snapshotted"),
    (Moment::Armed, "armed"),
    (Moment::Started, "started"),
    (Moment::Acting, "acting"),
    (Moment::Applied, "applied"),
    (Moment::Probing, "probing"),
    (Moment::Confirmed, "confirmed"),
    (Moment::RollbackBegan, "rollback_began"),
    (Moment::RolledBack, "rolled_back"),
    (Moment::RollbackIncomplete, "rollback_incomplete"),
    (Moment::Interrupted, "interrupted"),
    (Moment::Reported, "reported"),
];

impl Moment {
    /// Its name: the journal's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = MOMENTS.iter().find(|(moment, _)| *moment == self);
        found.map_or("?", |(_, name)| name)
    }

    /// The last event of the package in a journal.
    pub(super) fn last(journal: &str, package: &str) -> Self {
        let Some(at) = journal.find(package) else {
            return Self::Before;
        };
        let after = &journal[at..];
        let latest = MOMENTS
            .iter()
            .filter_map(|(moment, name)| {
                Some((after.rfind(&format!("\"event\":\"{name}\""))?, *moment))
            })
            .max();
        latest.map_or(Self::Admitted, |(_, moment)| moment)
    }
}

/// How the change ended after all, and which promises were broken.
pub(super) fn judge(
    bench: &mut Bench,
    before: &State,
    change: &Prepared,
    told: Option<i32>,
) -> Result<(String, Vec<String>)> {
    let mut bad = Vec::new();
    let end = ended(bench, change, &mut bad);
    repeatable(bench, &mut bad);
    state(bench, before, change, &end, &mut bad);
    match (told, end.as_str()) {
        (Some(0), "confirmed") | (None, _) => {}
        (Some(5), "rolled_back") => {}
        (Some(code), end) => bad.push(format!("the person was told {code}, and it is {end}")),
    }
    leftovers(bench, change, &end, &mut bad)?;
    Ok((end, bad))
}

/// The executor's own word; `none` if it does not know the package.
fn ended(bench: &Bench, change: &Prepared, bad: &mut Vec<String>) -> String {
    let listed: Value = serde_json::from_str(&bench.read("changes")).unwrap_or_default();
    let Some(changes) = listed["changes"].as_array() else {
        bad.push(format!(
            "the executor does not answer: {}",
            bench.read("executor.out")
        ));
        return "unknown".to_owned();
    };
    let known: Vec<&Value> = changes
        .iter()
        .filter(|c| c["package"] == *change.package)
        .collect();
    if known.len() > 1 {
        bad.push(format!("the package ran {} times", known.len()));
    }
    let Some(found) = known.first() else {
        return "none".to_owned();
    };
    let reports = found["steps"].as_array().into_iter().flatten();
    let reports = reports.filter(|step| step["stage"] == "reported").count();
    if reports != 1 {
        bad.push(format!("it is reported {reports} times"));
    }
    let stage = found["stage"].as_str().unwrap_or_default().to_owned();
    // What is interrupted has no stage of its own: it never got beyond its snapshot.
    if ![
        "confirmed",
        "rolled_back",
        "admitted",
        "snapshotted",
        "armed",
        "running",
    ]
    .contains(&stage.as_str())
    {
        bad.push(format!("it ended as {stage}"));
    }
    stage
}

fn repeatable(bench: &Bench, bad: &mut Vec<String>) {
    for name in ["recover", "again"] {
        let code = bench.read(&format!("{name}.rc"));
        if code.trim() != "0" {
            bad.push(format!(
                "'aizen recover' ended with {}: {}",
                code.trim(),
                bench.read(&format!("{name}.out"))
            ));
        }
    }
    let states = [bench.read("state.recovered"), bench.read("state.again")];
    if states[0] != states[1] {
        bad.push("a second recovery changed files".to_owned());
    }
}

/// Before the network comes up: as before, or as confirmed.
fn state(bench: &Bench, before: &State, change: &Prepared, end: &str, bad: &mut Vec<String>) {
    let now = match State::parse(&bench.read("state.recovered")) {
        Ok(now) => now,
        Err(error) => return bad.push(format!("{error:#}")),
    };
    if end == "confirmed" {
        let (wanted, found) = (&change.plan.after, now.contents());
        for (path, content) in wanted {
            if found.get(path) != Some(content) {
                bad.push(format!("it is confirmed, and {path} is not as confirmed"));
            }
        }
    } else {
        let differs = before.differs(&now);
        bad.extend(
            differs
                .iter()
                .map(|what| format!("not as before when the network comes up: {what}")),
        );
    }
}

/// One report, nothing of ours left, and the package never runs again.
fn leftovers(bench: &mut Bench, change: &Prepared, end: &str, bad: &mut Vec<String>) -> Result<()> {
    let (aizen, package) = (bench.aizen(), bench.hand_in(change)?);
    let (_, said) = bench.try_run(&format!(
        "cd /var/lib/aizen/executor\n\
         echo outcomes $(grep -l . outcomes/* 2>/dev/null | wc -l)\n\
         find /etc /var/lib/aizen -name '.*' | sed 's/^/temporary /'\n\
         ls snapshots | sed 's/^/snapshot /'\n\
         dmesg | grep -iE 'ext4-fs (error|warning)|f2fs.*(error|inconsist)' | sed 's/^/disk /'\n\
         {aizen} verify {package} 2>&1 | sed 's/^/verify /'\n"
    ))?;
    let lines = said.lines();
    for line in lines.filter(|line| {
        ["temporary ", "snapshot ", "disk "]
            .iter()
            .any(|start| line.starts_with(start))
    }) {
        bad.push(format!("left behind: {line}"));
    }
    let refused = said.contains("verify Refused");
    if refused != (end != "none") {
        bad.push(format!(
            "it ended as {end}, and the same package again: {said}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_after_the_admission_counts() {
        let journal =
            r#"{"event":"reported"} {"package":"p1"} {"event":"armed"} {"event":"acting"}"#;
        assert_eq!(Moment::last(journal, "p1"), Moment::Acting);
        assert_eq!(Moment::last(journal, "p2"), Moment::Before);
        assert_eq!(Moment::last(r#"{"package":"p1"}"#, "p1"), Moment::Admitted);
    }
}
