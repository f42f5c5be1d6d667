//! Services of systemd, over D-Bus (org.freedesktop.systemd1(5)): those that failed, those that are started again and
//! again, and those that networks are made of. On OpenWrt procd is asked instead.

pub(crate) mod procd;

use std::path::Path;
use std::time::{Duration, Instant};

use aizen_protocol::record::{Service, ServiceManager, ServiceState};
use jiff::Timestamp;

use super::dbus::wire::Writer;
use super::dbus::{Bus, Call, DbusError, Message};
use super::{CollectError, Seen, ubus};

/// Asks systemd or procd, which gets `deadline` for everything; `memory` is what is kept of procd's.
pub(crate) fn collect(
    root: &Path,
    deadline: Duration,
    memory: &procd::Memory,
) -> Result<Seen<Vec<Service>>, CollectError> {
    let socket = root.join("run/dbus/system_bus_socket");
    let untold = |why: &str| Err(CollectError::Untold(why.to_owned()));
    if !root.join("run/systemd/system").exists() {
        return match ubus::socket(root) {
            Some(socket) => procd::collect(root, &socket, deadline, memory),
            None => untold("no manager of services was found that can be asked (systemd, procd)"),
        };
    }
    if !socket.exists() {
        return untold("systemd can't be asked: there is no system bus (package dbus)");
    }
    ask(&socket, Instant::now() + deadline)
        .map_err(|error| CollectError::Untold(format!("systemd can't be asked: {error}")))
}

/// One service of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    name: String,
    path: String,
    state: ServiceState,
    /// Waits to be started again by itself.
    restarting: bool,
    /// Times it was started again; asked for later.
    restarts: Option<u32>,
}

fn ask(socket: &Path, until: Instant) -> Result<Seen<Vec<Service>>, DbusError> {
    let mut bus = Bus::connect(socket, until)?;
    let mut units = list(&mut bus)?;
    count_restarts(&mut bus, &mut units)?;
    // The worst come first, so that the bound cuts off the least.
    units.sort_by_key(|unit| (rank(unit), unit.name.clone()));
    let mut gaps = Vec::new();
    units.retain(|unit| rank(unit) < REST);
    if units.len() > MAX_SERVICES {
        gaps.push(format!(
            "{} more services were left out",
            units.len() - MAX_SERVICES
        ));
        units.truncate(MAX_SERVICES);
    }
    let mut value = Vec::with_capacity(units.len());
    for unit in units {
        value.push(describe(&mut bus, unit)?);
    }
    Ok(Seen { value, gaps })
}

fn list(bus: &mut Bus) -> Result<Vec<Unit>, DbusError> {
    let mut body = Writer::default();
    body.array(4, |_| {}).array(4, |patterns| {
        patterns.text("*.service");
    });
    let call = Call {
        destination: SYSTEMD,
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member: "ListUnitsByPatterns",
    };
    let answer = bus.ask(call, "asas", body)?;
    units(&answer).ok_or(DbusError::Malformed)
}

/// `a(ssssssouso)`: name, description, load state, active state, sub state, followed unit, path, job, its type, its path.
pub(crate) fn units(answer: &Message) -> Option<Vec<Unit>> {
    let mut body = answer.body();
    let end = body.array(8)?;
    let mut units = Vec::new();
    while body.next_struct(end) {
        let name = body.text()?;
        let (_, load, active, sub) = (body.text()?, body.text()?, body.text()?, body.text()?);
        let (_, path) = (body.text()?, body.text()?);
        let _job = (body.u32()?, body.text()?, body.text()?);
        // Units that others only name are listed, too.
        if load == "not-found" || units.len() == MAX_UNITS {
            continue;
        }
        units.push(Unit {
            name: name.trim_end_matches(".service").to_owned(),
            path: path.to_owned(),
            state: match active {
                "active" | "reloading" | "refreshing" => ServiceState::Running,
                "activating" => ServiceState::Starting,
                "deactivating" => ServiceState::Stopping,
                "failed" => ServiceState::Failed,
                _ => ServiceState::Stopped,
            },
            restarting: sub.starts_with("auto-restart"),
            restarts: None,
        });
    }
    Some(units)
}

/// A service that runs may still be one that crashes every minute.
fn count_restarts(bus: &mut Bus, units: &mut [Unit]) -> Result<(), DbusError> {
    for unit in units
        .iter_mut()
        .filter(|unit| unit.state != ServiceState::Stopped)
    {
        let serial = get(bus, &unit.path, SERVICE, "NRestarts")?;
        unit.restarts = value(bus, serial, |message| {
            let mut body = message.body();
            (body.signature()? == "u").then(|| body.u32())?
        })?;
    }
    Ok(())
}

fn rank(unit: &Unit) -> u8 {
    if unit.state == ServiceState::Failed {
        0
    } else if unit.restarting {
        1
    } else if unit.restarts.is_some_and(|restarts| restarts > 0) {
        2
    } else if is_of_the_network(&unit.name) {
        3
    } else {
        REST
    }
}

fn is_of_the_network(name: &str) -> bool {
    // `wg-quick@wg0` is an instance of `wg-quick`.
    let kind = name.split('@').next().unwrap_or_default();
    NETWORK.contains(&kind)
}

/// What else is told of a service. The questions leave together: one wait instead of six.
fn describe(bus: &mut Bus, unit: Unit) -> Result<Service, DbusError> {
    let wanted = get(bus, &unit.path, UNIT, "UnitFileState")?;
    let since = get(bus, &unit.path, UNIT, "StateChangeTimestamp")?;
    let result = get(bus, &unit.path, SERVICE, "Result")?;
    let code = get(bus, &unit.path, SERVICE, "ExecMainCode")?;
    let status = get(bus, &unit.path, SERVICE, "ExecMainStatus")?;
    let wanted = value(bus, wanted, text)?;
    let since = value(bus, since, |message| {
        let mut body = message.body();
        (body.signature()? == "t").then(|| body.u64())?
    })?;
    let result = value(bus, result, text)?;
    let code = value(bus, code, number)?;
    let status = value(bus, status, number)?;
    Ok(Service {
        name: unit.name,
        manager: ServiceManager::Systemd,
        state: unit.state,
        wanted: wanted.as_deref().and_then(is_wanted),
        restarts: unit.restarts,
        exit_code: status.filter(|_| code == Some(CLD_EXITED)),
        signal: status.filter(|_| matches!(code, Some(CLD_KILLED | CLD_DUMPED))),
        result: result.filter(|result| result != "success"),
        since: since
            .filter(|since| *since > 0)
            .and_then(|since| i64::try_from(since).ok())
            .and_then(|since| Timestamp::from_microsecond(since).ok()),
    })
}

/// What `UnitFileState` says of the next boot; static and generated units are started by others.
fn is_wanted(state: &str) -> Option<bool> {
    match state {
        "enabled" | "enabled-runtime" | "linked" | "linked-runtime" => Some(true),
        "disabled" | "masked" | "masked-runtime" | "bad" => Some(false),
        _ => None,
    }
}

fn get(bus: &mut Bus, path: &str, interface: &str, property: &str) -> Result<u32, DbusError> {
    let call = Call {
        destination: SYSTEMD,
        path,
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
    };
    let mut body = Writer::default();
    body.text(interface).text(property);
    bus.send(call, "ss", body)
}

/// The answer, or none if systemd is too old to know the property or has just forgotten the unit.
fn value<T>(
    bus: &mut Bus,
    serial: u32,
    read: impl FnOnce(&Message) -> Option<T>,
) -> Result<Option<T>, DbusError> {
    match bus.answer(serial) {
        Ok(message) => Ok(read(&message)),
        Err(DbusError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn text(message: &Message) -> Option<String> {
    let mut body = message.body();
    let text = (body.signature()? == "s").then(|| body.text())??;
    let plain = text.chars().filter(|c| !c.is_control());
    Some(plain.take(MAX_TEXT).collect::<String>()).filter(|text| !text.is_empty())
}

pub(crate) fn number(message: &Message) -> Option<i32> {
    let mut body = message.body();
    (body.signature()? == "i").then(|| body.i32())?
}

const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
/// How a process ended (waitid(2)).
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;
/// The rank of services that nobody here asks about.
const REST: u8 = 4;
const MAX_SERVICES: usize = 64;
const MAX_UNITS: usize = 1000;
const MAX_TEXT: usize = 40;
/// Services that networks are made of.
const NETWORK: &[&str] = &[
    "NetworkManager",
    "aizen",
    "aizen-executor",
    "bind9",
    "chrony",
    "chronyd",
    "conntrackd",
    "dhcpcd",
    "dnsmasq",
    "dropbear",
    "firewall",
    "firewalld",
    "frr",
    "hostapd",
    "ifup",
    "ipsec",
    "isc-dhcp-server",
    "kea-dhcp4",
    "kea-dhcp4-server",
    "kea-dhcp6-server",
    "keepalived",
    "named",
    "network",
    "networking",
    "nftables",
    "ntpd",
    "ntpsec",
    "odhcpd",
    "openvpn",
    "openvpn-client",
    "openvpn-server",
    "pppd",
    "pppd-dns",
    "radvd",
    "ssh",
    "sshd",
    "strongswan",
    "strongswan-starter",
    "strongswan-swanctl",
    "systemd-networkd",
    "systemd-resolved",
    "systemd-timesyncd",
    "ufw",
    "unbound",
    "wg-quick",
    "wpa_supplicant",
    "wpad",
    "xl2tpd",
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::collect::dbus::serve::{Daemon, serve, socket};
    use crate::collect::dbus::wire::Reader;

    const LONG: Duration = Duration::from_secs(60);

    fn untold(root: &Path, deadline: Duration) -> String {
        collect(root, deadline, &procd::Memory::default())
            .unwrap_err()
            .to_string()
    }

    fn booted(root: &Path) {
        fs::create_dir_all(root.join("run/systemd/system")).unwrap();
    }

    /// Answers like systemd for six units.
    fn systemd(path: &str, member: &str, mut body: Reader<'_>) -> Option<(&'static str, Writer)> {
        let mut answer = Writer::default();
        if member == "ListUnitsByPatterns" {
            answer.array(8, |units| {
                for (name, load, active, sub) in [
                    ("cron", "loaded", "active", "running"),
                    ("dnsmasq", "loaded", "failed", "failed"),
                    ("gone", "not-found", "inactive", "dead"),
                    ("looper", "loaded", "active", "running"),
                    ("pppd", "loaded", "activating", "auto-restart"),
                    ("wg-quick@wg0", "loaded", "active", "exited"),
                ] {
                    units.align(8);
                    units.text(&format!("{name}.service")).text("words");
                    units.text(load).text(active).text(sub).text("");
                    // A path has no other signs than these.
                    let path = name.replace(['-', '@'], "_");
                    units
                        .text(&format!("/unit/{path}"))
                        .u32(0)
                        .text("")
                        .text("/");
                }
            });
            return Some(("a(ssssssouso)", answer));
        }
        let (_, property) = (body.text()?, body.text()?);
        let name = path.strip_prefix("/unit/")?;
        match (property, name) {
            ("NRestarts", "looper") => answer.signature("u").u32(7),
            ("NRestarts", "wg_quick_wg0") => return None,
            ("NRestarts", _) => answer.signature("u").u32(0),
            ("UnitFileState", _) => answer.signature("s").text("enabled"),
            ("StateChangeTimestamp", _) => {
                // 1,000,000 µs, little-endian, aligned to 8.
                answer.signature("t").align(8);
                answer.u32(1_000_000).u32(0)
            }
            ("Result", "dnsmasq") => answer.signature("s").text("exit-code"),
            ("Result", _) => answer.signature("s").text("success"),
            ("ExecMainCode", "dnsmasq") => answer.signature("i").u32(1),
            ("ExecMainCode", "pppd") => answer.signature("i").u32(2),
            ("ExecMainStatus", "dnsmasq") => answer.signature("i").u32(3),
            ("ExecMainStatus", "pppd") => answer.signature("i").u32(11),
            _ => answer.signature("i").u32(0),
        };
        Some(("v", answer))
    }

    #[test]
    fn failed_and_restarting_services_come_first_and_strangers_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        booted(root.path());
        let _daemon = Daemon::start(root.path());
        serve(&socket(root.path()), SYSTEMD, systemd);
        let seen = collect(root.path(), LONG, &procd::Memory::default()).unwrap();
        let names: Vec<_> = seen.value.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            ["dnsmasq", "pppd", "looper", "wg-quick@wg0"],
            "{:?}",
            seen.gaps
        );
        let [failed, restarting, looping, vpn] = &seen.value[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(
            (failed.state, failed.exit_code),
            (ServiceState::Failed, Some(3))
        );
        assert_eq!((failed.signal, failed.wanted), (None, Some(true)));
        assert_eq!(failed.result.as_deref(), Some("exit-code"));
        assert_eq!(failed.since.unwrap().as_second(), 1);
        assert_eq!(
            (restarting.state, restarting.signal),
            (ServiceState::Starting, Some(11))
        );
        assert_eq!(
            (looping.state, looping.restarts),
            (ServiceState::Running, Some(7))
        );
        assert_eq!((vpn.restarts, vpn.result.as_deref()), (None, None));
    }

    #[test]
    fn a_systemd_that_does_not_answer_costs_its_deadline_and_is_a_gap() {
        let root = tempfile::tempdir().unwrap();
        booted(root.path());
        let _daemon = Daemon::start(root.path());
        let why = untold(root.path(), LONG);
        assert!(why.contains("ServiceUnknown"), "{why}");
        serve(&socket(root.path()), SYSTEMD, |_, _, _| {
            std::thread::park();
            None
        });
        let late = untold(root.path(), Duration::from_millis(300));
        assert!(late.contains("no answer in time"), "{late}");
    }

    #[test]
    fn a_device_without_systemd_or_without_a_bus_says_so() {
        let root = tempfile::tempdir().unwrap();
        assert!(untold(root.path(), LONG).contains("no manager"));
        booted(root.path());
        assert!(untold(root.path(), LONG).contains("no system bus"));
        fs::create_dir_all(root.path().join("run/dbus")).unwrap();
        fs::write(socket(root.path()), "").unwrap();
        assert!(untold(root.path(), LONG).contains("can't be asked"));
    }

    #[test]
    fn a_bus_that_talks_nonsense_is_a_gap() {
        use std::io::{Read as _, Write as _};
        let root = tempfile::tempdir().unwrap();
        booted(root.path());
        fs::create_dir_all(root.path().join("run/dbus")).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(socket(root.path())).unwrap();
        let liar = std::thread::spawn(move || {
            for nonsense in [
                &b"REJECTED EXTERNAL\r\n"[..],
                b"OK 1\r\nxxxxxxxxxxxxxxxxxxxx",
                &[b'x'; 4096],
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(nonsense).unwrap();
                // Holds the connection until the other side gives up.
                std::io::copy(&mut stream.take(1 << 16), &mut std::io::sink()).ok();
            }
        });
        for want in [
            "refused this user",
            "no message of D-Bus",
            "no message of D-Bus",
        ] {
            let why = untold(root.path(), LONG);
            assert!(why.contains(want), "{why}");
        }
        liar.join().unwrap();
    }
}
