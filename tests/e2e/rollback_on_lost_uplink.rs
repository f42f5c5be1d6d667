//! The second story: a change that cuts the device off undoes itself.

use std::time::Duration;

use harness::lab::{GATEWAY, LAN_HOST};
use harness::world::World;
use harness::{shell, wait};
use serde_json::json;

#[test]
fn a_change_that_cuts_the_uplink_is_rolled_back_to_exactly_the_state_before() {
    let world = World::start(&mut |_, _| {}).unwrap();
    shell::run(
        world
            .device
            .command("sh")
            .args(["-c", &format!("ping -c1 -W2 {LAN_HOST} || true")]),
    )
    .unwrap();
    world.device.wait_rounds().unwrap();
    let before = world.device.state_of_network().unwrap();
    let pseudonym = world.device.pseudonym(LAN_HOST).unwrap();
    assert_ne!(pseudonym, LAN_HOST);
    let variable = format!("IP_{}", pseudonym.replace('.', "_"));
    let (script, manifest) = (
        world.lab.folder().join("s.sh"),
        world.lab.folder().join("m.json"),
    );
    std::fs::write(
        &script,
        format!("change route replace default via \"${variable}\" dev lan0\n"),
    )
    .unwrap();
    let granted = json!({
        "class": "repair", "min_isolation": 2, "timeout_s": 10,
        "operations": [{"route": {"replace": {"dst": "default", "via": format!("${variable}"), "dev": "lan0"}}}],
        "confirm": {"within_s": 12, "stable_s": 1, "probes": [{"uplink": true}]},
    });
    std::fs::write(&manifest, granted.to_string()).unwrap();
    let binding = format!("address={pseudonym}");
    let words = [
        "propose",
        "--device",
        &world.id,
        "--script",
        script.to_str().unwrap(),
        "--manifest",
        manifest.to_str().unwrap(),
    ];
    let proposed = world
        .cloud
        .ask(
            &[
                &words[..],
                &["--binding", &binding, "--intent", "move the route"],
            ]
            .concat(),
        )
        .unwrap();
    let approval = world
        .cloud
        .pending_approval(Duration::from_secs(60))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", world.said()));
    world
        .cloud
        .approve(approval["id"].as_str().unwrap())
        .unwrap();
    let default = || {
        world
            .lab
            .device
            .ip("route show default")
            .unwrap_or_default()
    };
    wait::until("the route to move", Duration::from_secs(30), || {
        default().contains(LAN_HOST).then_some(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", world.said()));
    wait::until("the rollback", Duration::from_secs(60), || {
        default().contains(GATEWAY).then_some(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", world.said()));
    let case = proposed["case"].as_str().unwrap();
    wait::until("the report", Duration::from_secs(60), || {
        (world.cloud.ask(&["cases", case]).ok()?["state"] == "rolled_back").then_some(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", world.said()));
    assert_eq!(world.device.state_of_network().unwrap(), before);
}
