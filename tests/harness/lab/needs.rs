//! What a scenario needs of the kernel, found by trying in a namespace of its own: a word for each, and how it is tried.

use std::process::Command;

use anyhow::{Result, bail};

use crate::netns::Netns;
use crate::shell;

/// Word, and the lines that succeed where the kernel has it.
const KNOWN: [(&str, &str); 5] = [
    ("bond", "ip link add probe type bond"),
    ("netem", "tc qdisc add dev lo root netem delay 1ms"),
    (
        "pppoe",
        "modprobe -q pppoe ppp_async; test -c /dev/ppp && grep -q PPPOE /proc/net/protocols",
    ),
    (
        "vlan",
        "ip link add under type veth peer name other; ip link add link under name probe type vlan id 20",
    ),
    ("wireguard", "ip link add probe type wireguard"),
];

/// Programs that go with these, and the packages that bring them.
pub const PROGRAMS: &[(&str, &str)] = &[
    ("wg", "wireguard-tools"),
    ("pppd", "ppp"),
    ("modprobe", "kmod"),
];

/// Those of the needs that this kernel does not meet.
///
/// # Errors
/// If a word is none of those that can be tried.
pub fn lacking(needs: &[String]) -> Result<Vec<&str>> {
    let mut lacking = Vec::new();
    for need in needs {
        let Some((_, lines)) = KNOWN.iter().find(|(word, _)| word == need) else {
            let words: Vec<&str> = KNOWN.iter().map(|(word, _)| *word).collect();
            bail!("a scenario needs '{need}': known are {}", words.join(", "));
        };
        let name = format!("azneed{}{}", std::process::id(), lacking.len());
        let probe = Netns::new(name)?;
        let mut command: Command = probe.command("sh");
        if !shell::output(command.args(["-ec", lines]))?
            .status
            .success()
        {
            lacking.push(need.as_str());
        }
    }
    Ok(lacking)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::scenario;

    #[test]
    fn every_need_of_a_scenario_can_be_tried() {
        let known = |need: &String| KNOWN.iter().any(|(word, _)| word == need);
        let all = scenario::all().unwrap();
        assert!(all.iter().any(|scenario| !scenario.needs.is_empty()));
        for scenario in &all {
            assert!(scenario.needs.iter().all(known), "{}", scenario.name);
            assert!(
                !scenario.quick || scenario.needs.is_empty(),
                "{} runs everywhere",
                scenario.name
            );
        }
    }
}
