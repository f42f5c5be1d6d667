//! The units under a booted systemd: their order, their walls, and a change through them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use super::furnish;
use super::kernel::Kernel;
use super::machine::{Machine, Shape};
use crate::package::{alice, for_device, manifest, sign};
use crate::world::World;

/// Longest look of the guest at its units.
const WITHIN: Duration = Duration::from_secs(600);
/// This project's units and what belongs to them.
const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd");
/// What this machine's own units start is none of this trial's business: only what systemd itself needs is left.
const START: &str = r#"
mount -t tmpfs tmp /tmp; chmod 1777 /tmp
for d in /var/tmp /var/log /var/cache; do mount -t tmpfs tmp $d; done
u=/etc/systemd/system; rm -rf $u /etc/systemd/network; mkdir -p $u
for d in /usr/lib/systemd/system/multi-user.target.wants /usr/lib/systemd/system/timers.target.wants; do
  [ -d $d ] && for f in $d/*; do ln -sf /dev/null $u/${f##*/}; done
done
for f in /etc/init.d/*; do ln -sf /dev/null $u/${f##*/}.service; done
rm -f $u/dbus.service $u/procps.service $u/udev.service $u/kmod.service
cp UNITS/*.service UNITS/*.socket $u/
cp UNITS/sysusers.conf /usr/lib/sysusers.d/aizen.conf; cp UNITS/tmpfiles.conf /usr/lib/tmpfiles.d/aizen.conf
cp UNITS/sysctl.conf /usr/lib/sysctl.d/aizen.conf
cp /run/vm/aizen /usr/bin/aizen
rm -rf /etc/aizen; cp -r /run/vm/root/etc/aizen /etc/; mkdir -p /etc/network; echo 'auto wan' >/etc/network/interfaces
mkdir -p /var/lib/aizen; mount -t tmpfs tmp /var/lib/aizen; cp -a /run/vm/root/aizen/. /var/lib/aizen/
systemd-sysusers; chown -R aizen:aizen /var/lib/aizen/daemon; chgrp aizen /var/lib/aizen /var/lib/aizen/sanitizer.key
echo '[daemon]
user = "aizen"' >/etc/aizen/aizen.toml
modprobe veth
ip link add wan type veth peer name isp; ip addr add 192.0.2.2/24 dev wan; ip link set wan up; ip link set isp up
cat >$u/trial-network.service <<E
[Unit]
DefaultDependencies=no
After=network-pre.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
E
cat >$u/trial-door.service <<E
[Unit]
After=aizen.service aizen-executor.socket trial-network.service
[Service]
Environment=PATH=$PATH LC_ALL=C.UTF-8
ExecStart=/bin/sh /run/vm/door
E
mkdir -p $u/sysinit.target.wants $u/sockets.target.wants $u/multi-user.target.wants
ln -s ../aizen-recover.service $u/sysinit.target.wants/; ln -s ../aizen-executor.socket $u/sockets.target.wants/
for s in aizen trial-network trial-door; do ln -s ../$s.service $u/multi-user.target.wants/; done
ln -s /usr/lib/systemd/system/multi-user.target $u/default.target
: >/etc/fstab; echo 0123456789abcdef0123456789abcdef >/etc/machine-id
sed -n '/^exec 3/,$p' /run/vm/boot | grep -v '/run/vm/start' >/run/vm/door
exec /usr/lib/systemd/systemd --system
"#;

/// What the guest tells of its units: one line each.
const LOOK: &str = r#"
for n in 1 2 3 4 5 6 7 8 9 10; do systemctl is-active -q aizen.service && break; sleep 3; done
for u in aizen-recover.service network-pre.target trial-network.service; do
  echo "entered $u $(systemctl show -P ActiveEnterTimestampMonotonic $u)"
done
for u in aizen-recover.service aizen.service aizen-executor.socket; do echo "state $u $(systemctl is-active $u)"; done
echo "confined $(aizen status --json | sed -n 's/^ *"level": //p')"
echo "unconfined $(aizen sandbox check --json | sed -n 's/^ *"level": //p')"
aizen apply --yes /run/vm/package.json >/run/vm/apply.out 2>&1 & apply=$!
while kill -0 $apply 2>/dev/null; do
  id=$(sed -n 's/.*aizen changes confirm //p' /run/vm/apply.out)
  [ -n "$id" ] && aizen changes confirm "$id" && break
  sleep 0.2
done
wait $apply; echo "apply $?"; echo "file $(cat /etc/network/interfaces)"
echo "owner $(stat -c %U /var/lib/aizen/daemon) $(stat -c %G /var/lib/aizen/sanitizer.key)"
journalctl --no-pager -u aizen-recover -u aizen -u aizen-executor | tail -40 | sed 's/^/log /'; cat /run/vm/apply.out | sed 's/^/log /'
"#;

/// What the units of a booted systemd did.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The guest's own words.
    pub said: String,
    /// Promises that were broken.
    pub violations: Vec<String>,
}

/// Boots a systemd with the project's units and an enrolled device, and applies a change through them.
///
/// # Errors
/// If the guest does not come up.
pub fn look(kernel: &Kernel, folder: &Path) -> Result<Looked> {
    let world = World::enrolled()?;
    // By way of the share: the guest's own `/tmp` hides this machine's.
    let share = folder.join("share");
    fs::create_dir_all(&share)?;
    furnish::lean(&share.join("aizen"))?;
    furnish::device(&world, &share.join("root"))?;
    let start = START.replace("UNITS", UNITS);
    let shape = Shape {
        kernel,
        memory: 1024,
        disk: None,
        start: &start,
    };
    let mut machine = Machine::start(&shape, folder)?;
    let change = manifest(&json!({
        "class": "repair", "min_isolation": 2, "timeout_s": 100,
        "operations": [{"file": {"write": "/etc/network/interfaces"}}],
        "confirm": {"within_s": 120, "stable_s": 1, "probes": []},
    }))?;
    let script = "echo kept | change file write /etc/network/interfaces\n";
    let package = for_device(&world.device, &world.id, script, change)?;
    let envelope = sign(&package, &[&alice(&world)?])?;
    fs::write(share.join("package.json"), serde_json::to_vec(&envelope)?)?;
    machine.wait_up(|| false)?;
    let said = machine.run(LOOK, WITHIN)?;
    machine.kill()?;
    judge(said)
}

fn judge(said: String) -> Result<Looked> {
    let told = |start: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(start))
            .map(str::trim)
    };
    let entered =
        |unit: &str| told(&format!("entered {unit} ")).and_then(|text| text.parse::<u64>().ok());
    let mut violations = Vec::new();
    match (
        entered("aizen-recover.service"),
        entered("network-pre.target"),
        entered("trial-network.service"),
    ) {
        (Some(recovered), Some(before), Some(network)) => {
            if recovered == 0 || recovered > before || before > network {
                violations.push(format!("recovered at {recovered}, the network's turn at {before}, the network at {network}"));
            }
        }
        _ => bail!("the guest does not say when its units were ready: {said}"),
    }
    for unit in [
        "aizen-recover.service",
        "aizen.service",
        "aizen-executor.socket",
    ] {
        let state = told(&format!("state {unit} "));
        if state != Some("active") {
            violations.push(format!("{unit} is {state:?}"));
        }
    }
    let level = |start: &str| told(start).map(|text| text.trim_end_matches(','));
    let (confined, unconfined) = (level("confined "), level("unconfined "));
    if confined.is_none() || confined != unconfined {
        violations.push(format!(
            "level {confined:?} under the executor's unit, {unconfined:?} outside"
        ));
    }
    if told("owner ") != Some("aizen aizen") {
        violations.push(format!(
            "the daemon's state belongs to {:?}",
            told("owner ")
        ));
    }
    if told("apply ") != Some("0") || told("file ") != Some("kept") {
        violations.push("a change through the units was not kept".to_owned());
    }
    Ok(Looked { said, violations })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = "entered aizen-recover.service 5\nentered network-pre.target 6\nentered trial-network.service 7\n\
        state aizen-recover.service active\nstate aizen.service active\nstate aizen-executor.socket active\n\
        confined 2\nunconfined 2,\nowner aizen aizen\napply 0\nfile kept\n";

    #[test]
    fn a_network_that_comes_before_the_recovery_is_a_broken_promise() {
        assert!(judge(WELL.to_owned()).unwrap().violations.is_empty());
        let late = WELL.replace("recover.service 5", "recover.service 9");
        assert_eq!(judge(late).unwrap().violations.len(), 1);
        let down = WELL.replace("aizen.service active", "aizen.service failed");
        assert_eq!(judge(down).unwrap().violations.len(), 1);
    }
}
