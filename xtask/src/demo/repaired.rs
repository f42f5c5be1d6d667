//! The first story: the device's resolver dies, and the loop repairs it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::fault::Fault;
use harness::lab::{DNS1, OTHER_NAME};
use harness::world::World;
use harness::{shell, wait};
use serde_json::Value;

use super::told::Told;

pub(crate) fn tell(world: &mut World, told: &mut Told, yes: bool) -> Result<()> {
    told.title("Story 1: the resolver dies");
    let before = resolves(world);
    if !before {
        bail!(
            "{OTHER_NAME} does not resolve before the fault: {}",
            world.device.said()
        );
    }
    told.step("device", &format!("{OTHER_NAME} resolves"));
    Fault::ResolverDead.inject(&mut world.lab)?;
    told.step(
        "lab",
        &format!("the resolver at {DNS1} is killed; /etc/resolv.conf names no other"),
    );
    let case = world
        .cloud
        .case("resolver_dead", "*", Duration::from_secs(60))
        .with_context(|| world.said())?;
    told.step(
        "cloud",
        &format!("case {}: {}", word(&case["id"]), word(&case["summary"])),
    );
    told.text(&format!("(in pseudonyms: the cloud never sees {DNS1})"));
    show_evidence(told, &case);
    let approval = world
        .cloud
        .pending_approval(Duration::from_secs(60))
        .with_context(|| world.said())?;
    let id = word(&approval["id"]).to_owned();
    told.step(
        "device",
        "rehearsed the repair in a shadow of itself; the effect waits for a person:",
    );
    show_effect(world, told, &id)?;
    told.ask("Approve this effect with Alice's key?", yes)?;
    world.cloud.approve(&id)?;
    told.step(
        "person",
        "signed exactly these bytes; the key never was on the orchestrator",
    );
    let case = follow(world, told, word(&case["id"]))?;
    told.step("cloud", &format!("case is {}", word(&case["state"])));
    if case["state"] != "resolved" || !resolves(world) {
        bail!("the repair did not hold\n{}", world.said());
    }
    told.step(
        "device",
        &format!(
            "{OTHER_NAME} resolves again, {:.1} s after the story began",
            told.seconds()
        ),
    );
    told.text(&std::fs::read_to_string(
        world.device.etc().join("resolv.conf"),
    )?);
    Ok(())
}

/// The question as the command line shows it, without the script's text.
pub(crate) fn show_effect(world: &World, told: &mut Told, approval: &str) -> Result<()> {
    let mut command = world.cloud.command(&["approvals", approval])?;
    let shown = shell::run(command.arg("--data").arg(world.cloud.data()))?;
    let (effect, script) = shown.split_once("Script:").unwrap_or((&shown, ""));
    told.text(effect.trim_end());
    told.text(&format!(
        "(and the script, {} lines: 'aizen-orchestrator approvals ID' shows them)",
        script.trim().lines().count()
    ));
    Ok(())
}

/// Tells each entry of a case's timeline until the case is settled.
pub(crate) fn follow(world: &World, told: &mut Told, id: &str) -> Result<Value> {
    let mut seen = BTreeSet::new();
    wait::until("the case to be settled", Duration::from_secs(120), || {
        let case = world.cloud.ask(&["cases", id]).ok()?;
        for entry in case["timeline"].as_array().into_iter().flatten() {
            if seen.insert(entry["n"].as_i64()) {
                let line = format!("{} {}", word(&entry["event"]), brief(&entry["data"]));
                told.at(word(&entry["at"]), "record", &line);
            }
        }
        let settled = !matches!(
            word(&case["state"]),
            "open" | "rehearsing" | "awaiting_approval" | "delivering" | "running"
        );
        settled.then_some(case)
    })
    .with_context(|| world.said())
}

fn show_evidence(told: &mut Told, case: &Value) {
    for evidence in case["finding"]["evidence"].as_array().into_iter().flatten() {
        told.text(&format!(
            "- {}: {}",
            word(&evidence["source"]),
            word(&evidence["fact"])
        ));
    }
}

/// True if a program on the device that knows nothing of us can resolve a name.
fn resolves(world: &World) -> bool {
    shell::run(
        world
            .device
            .command("getent")
            .args(["ahostsv4", OTHER_NAME]),
    )
    .is_ok()
}

/// What an entry says to a person: short words and numbers; names and digests are in the record.
fn brief(data: &Value) -> String {
    let fields = data.as_object().into_iter().flatten();
    let told = fields.filter_map(|(key, value)| match value {
        Value::String(text) if text.len() <= 30 => Some(format!("{key}={text}")),
        Value::Number(number) => Some(format!("{key}={number}")),
        Value::Bool(yes) => Some(format!("{key}={yes}")),
        _ => None,
    });
    told.collect::<Vec<_>>().join(" ")
}

pub(crate) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
