//! The kernel matrix: what the sandbox says of a kernel, against what a script inside finds by trying.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::kernel::Kernel;
use super::machine::{Machine, Shape};

const PROBE: &str = include_str!("probe.py");
/// Processes that the probe's manifest allows; it tries 64.
const PROCESSES: u64 = 16;
/// Longest part of a look at one kernel.
const WITHIN: Duration = Duration::from_secs(300);

/// What came of one kernel.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is called here.
    pub kernel: &'static str,
    /// As `uname -r` says it.
    pub release: String,
    /// The level that `aizen sandbox check` reports.
    pub reported: u64,
    /// The level that follows from what was tried inside.
    pub found: u64,
    /// What it says of Landlock.
    pub landlock: String,
    /// Layers that are reported missing.
    pub missing: Vec<String>,
    /// Layers of which report and trial differ, and runs that should have been refused.
    pub differ: Vec<String>,
}

/// Boots a kernel and looks.
///
/// # Errors
/// If the guest does not come up or a program of it fails.
pub fn look(kernel: &Kernel, aizen: &Path, folder: &Path) -> Result<Row> {
    let shape = Shape {
        kernel,
        memory: 1024,
        disk: None,
        start: "",
    };
    let mut machine = Machine::start(&shape, folder)?;
    machine.wait_up(|| false)?;
    let manifest = json!({
        "class": "diagnose", "min_isolation": 1, "timeout_s": 120, "operations": [],
        "limits": {"memory_mib": 48, "processes": PROCESSES, "output_kib": 64, "scratch_mib": 4, "cpu_s": 60},
    });
    let share = machine.share().to_owned();
    fs::write(share.join("manifest.json"), manifest.to_string())?;
    let mut demanding = manifest;
    demanding["min_isolation"] = json!(4);
    fs::write(share.join("demanding.json"), demanding.to_string())?;
    fs::write(share.join("probe.py"), PROBE)?;
    let said = machine.run(&script(aizen), WITHIN)?;
    let read = |name: &str| -> Result<Value> {
        let text = fs::read_to_string(share.join(name))?;
        serde_json::from_str(&text).with_context(|| format!("{name}: {text}\n{said}"))
    };
    let facts = Facts {
        inside: read("inside.json")?,
        outside: fs::read_to_string(share.join("outside"))?,
        memory_bounded: !fs::read_to_string(share.join("memory"))?.contains("unbounded"),
    };
    let demanded = fs::read_to_string(share.join("demanded"))?;
    machine.kill()?;
    Ok(judge(
        kernel,
        &read("check.json")?,
        &facts,
        demanded.trim() == "0",
    ))
}

fn script(aizen: &Path) -> String {
    let aizen = aizen.display();
    format!(
        "cd /run/vm\n\
         {aizen} sandbox check --json >check.json || exit 1\n\
         for n in mnt pid ipc uts cgroup net user; do readlink /proc/self/ns/$n; done >outside\n\
         {aizen} sandbox run --manifest manifest.json -- python3 -c \"$(cat probe.py)\" >inside.json || exit 2\n\
         {aizen} sandbox run --manifest manifest.json -- python3 -c 'b\"x\" * (256 << 20); print(\"unbounded\")' >memory 2>&1\n\
         {aizen} sandbox run --manifest demanding.json -- true; echo $? >demanded\n"
    )
}

struct Facts {
    inside: Value,
    outside: String,
    memory_bounded: bool,
}

impl Facts {
    /// Whether a layer stands, by trial; none if this probe has no trial for it.
    fn stands(&self, layer: &str) -> Option<bool> {
        let inside = &self.inside;
        let all = |key: &str, wanted: &str| {
            inside[key].as_array().is_some_and(|values| {
                !values.is_empty() && values.iter().all(|value| value == wanted)
            })
        };
        let refused = |key: &str| inside[key] != "done";
        let own = |name: &str| {
            let link = inside["namespaces"][name].as_str();
            link.is_some_and(|link| !self.outside.lines().any(|other| other == link))
        };
        Some(match layer {
            "uid" => inside["Uid"]
                .as_array()
                .is_some_and(|ids| ids.len() == 4 && ids.iter().all(|id| id != "0")),
            "capabilities" => ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
                .iter()
                .all(|set| all(set, "0000000000000000")),
            "no_new_privs" => all("NoNewPrivs", "1"),
            "seccomp" => all("Seccomp", "2") && refused("internet_socket"),
            "mount_namespace" => own("mnt"),
            "pid_namespace" => own("pid"),
            "ipc_namespace" => own("ipc"),
            "uts_namespace" => own("uts"),
            "cgroup_namespace" => own("cgroup"),
            "user_namespace" => own("user"),
            "network_namespace" | "network" => own("net"),
            "landlock" => inside["write_random"] == "Permission denied",
            "landlock_scopes" => inside["signal_init"] == "Operation not permitted",
            "process_limit" => inside["forks"]
                .as_u64()
                .is_some_and(|forks| forks < PROCESSES),
            "memory_limit" => self.memory_bounded,
            "cgroup_v2" => self.memory_bounded && self.stands("process_limit")?,
            "rlimits" => {
                inside["cpu_s"] == 60 && inside["files"].as_u64().is_some_and(|files| files <= 1024)
            }
            // Standard input, output, error, and the script.
            "descriptors" => inside["descriptors"] == json!([0, 1, 2, 4]),
            "environment" => inside["environment"]
                .as_array()
                .is_some_and(|names| names.len() <= 6),
            "session" => refused("terminal"),
            _ => return None,
        })
    }
}

/// What each level needs besides those below it (`sandbox/src/level.rs`), by the promises of the design.
const NEEDS: [&[&str]; 4] = [
    &[
        "uid",
        "capabilities",
        "no_new_privs",
        "rlimits",
        "descriptors",
        "environment",
        "session",
    ],
    &[
        "seccomp",
        "mount_namespace",
        "pid_namespace",
        "ipc_namespace",
    ],
    &["landlock", "landlock_scopes", "cgroup_v2"],
    &["network"],
];

fn judge(kernel: &Kernel, check: &Value, facts: &Facts, demanded_ran: bool) -> Row {
    let mut row = Row {
        kernel: kernel.name,
        release: kernel.release.clone(),
        reported: check["level"].as_u64().unwrap_or(0),
        found: 0,
        landlock: String::new(),
        missing: Vec::new(),
        differ: Vec::new(),
    };
    for layer in check["layers"].as_array().into_iter().flatten() {
        let name = layer["name"].as_str().unwrap_or_default();
        let enforced = layer["enforced"] == true;
        if name == "landlock" {
            row.landlock = layer["detail"].as_str().unwrap_or_default().to_owned();
        }
        if !enforced {
            row.missing.push(name.to_owned());
        }
        if facts.stands(name).is_some_and(|stands| stands != enforced) {
            row.differ
                .push(format!("{name}: reported {enforced}, found {}", !enforced));
        }
    }
    let stands = |name: &&str| facts.stands(name).unwrap_or(false);
    row.found = NEEDS
        .iter()
        .take_while(|names| names.iter().all(stands))
        .count() as u64;
    if row.found != row.reported {
        row.differ.push(format!(
            "level: reported {}, found {}",
            row.reported, row.found
        ));
    }
    if demanded_ran != (row.reported >= 4) {
        row.differ
            .push(format!("a run that asks for level 4 ran: {demanded_ran}"));
    }
    row
}

/// A Markdown table.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| kernel | release | level reported | level found inside | Landlock | missing | differences |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let list = |words: &[String]| match words {
        [] => "none".to_owned(),
        words => words.join("; "),
    };
    for row in rows {
        table.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            row.kernel,
            row.release,
            row.reported,
            row.found,
            row.landlock,
            list(&row.missing),
            list(&row.differ)
        ));
    }
    table
}
