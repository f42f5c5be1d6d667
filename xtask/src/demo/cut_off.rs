//! The second story: an approved script cuts the device off, and the device saves itself.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::cloud::text;
use harness::lab::{GATEWAY, LAN_HOST};
use harness::world::World;
use harness::{shell, wait};
use serde_json::json;

use super::repaired::{follow, show_effect, word};
use super::told::Told;

pub(crate) fn tell(world: &mut World, told: &mut Told, yes: bool) -> Result<()> {
    told.title("Story 2: an approved script cuts the device off");
    shell::run(
        world
            .device
            .command("ping")
            .args(["-c", "1", "-W", "2", LAN_HOST]),
    )
    .ok();
    world.device.wait_rounds()?;
    let before = world.device.state_of_network()?;
    told.step("device", "state before:");
    told.text(&routes(&before));
    let pseudonym = world.device.pseudonym(LAN_HOST)?;
    told.step(
        "person",
        &format!("proposes: default route via the LAN host, known here as {pseudonym}"),
    );
    told.text("(it answers ARP and does not forward: no rehearsal can know that)");
    let proposed = propose(world, &pseudonym)?;
    let case = word(&proposed["case"]).to_owned();
    let approval = world
        .cloud
        .pending_approval(Duration::from_secs(60))
        .with_context(|| world.said())?;
    let id = word(&approval["id"]).to_owned();
    told.step("device", "rehearsed it; the shadow has no fault to find:");
    show_effect(world, told, &id)?;
    told.ask("Approve this effect with Alice's key?", yes)?;
    world.cloud.approve(&id)?;
    told.step("person", "signed");
    wait::until("the route to move", Duration::from_secs(30), || {
        let route = world.lab.device.ip("route show default").ok()?;
        route.contains(LAN_HOST).then_some(())
    })
    .with_context(|| world.said())?;
    told.step(
        "device",
        &format!("default route is via {LAN_HOST}: the uplink is gone, nobody can confirm"),
    );
    wait::until("the rollback", Duration::from_secs(90), || {
        let route = world.lab.device.ip("route show default").ok()?;
        route.contains(GATEWAY).then_some(())
    })
    .with_context(|| world.said())?;
    told.step("device", "rolled itself back, alone");
    let case = follow(world, told, &case)?;
    if case["state"] != "rolled_back" {
        bail!("the case is {}\n{}", case["state"], world.said());
    }
    let after = world.device.state_of_network()?;
    if after != before {
        bail!("the state differs\nbefore:\n{before}\nafter:\n{after}");
    }
    told.step(
        "device",
        "reconnected and reported; state after, identical byte by byte:",
    );
    told.text(&routes(&after));
    Ok(())
}

fn propose(world: &World, pseudonym: &str) -> Result<serde_json::Value> {
    let variable = format!("IP_{}", pseudonym.replace('.', "_"));
    let script = world.lab.folder().join("cut-off.sh");
    let manifest = world.lab.folder().join("cut-off.json");
    std::fs::write(
        &script,
        format!("change route replace default via \"${variable}\" dev lan0\n"),
    )?;
    let granted = json!({
        "class": "repair", "min_isolation": 2, "timeout_s": 10,
        "operations": [{"route": {"replace": {"dst": "default", "via": format!("${variable}"), "dev": "lan0"}}}],
        "confirm": {"within_s": 15, "stable_s": 2, "probes": [{"uplink": true}]},
    });
    std::fs::write(&manifest, granted.to_string())?;
    world.cloud.ask(&[
        "propose",
        "--device",
        &world.id,
        "--script",
        text(&script)?,
        "--manifest",
        text(&manifest)?,
        "--binding",
        &format!("address={pseudonym}"),
        "--intent",
        "use the second provider behind the LAN host",
    ])
}

fn routes(state: &str) -> String {
    let told = |line: &&str| line.starts_with("default via") || line.starts_with("nameserver");
    state
        .lines()
        .filter(told)
        .map(|line| format!("{line}\n"))
        .collect()
}
