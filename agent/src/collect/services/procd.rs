//! Services of OpenWrt's procd (`service list` over ubus): those whose process ended although it should run, those that
//! are started again and again, and those that networks are made of.
//!
//! procd tells no number of restarts, so they are counted here: a process that is another one than at the last look was
//! started again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aizen_protocol::record::{Service, ServiceManager, ServiceState};
use serde_json::Value;

use super::{MAX_SERVICES, MAX_TEXT, is_of_the_network};
use crate::collect::ubus::{Ubus, UbusError};
use crate::collect::{CollectError, Seen, file};

/// What is remembered of each instance between two looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<(String, String), Known>>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The last process that was seen.
    pid: Option<i64>,
    running: bool,
    restarts: u32,
}

pub(super) fn collect(
    root: &Path,
    socket: &Path,
    deadline: Duration,
    memory: &Memory,
) -> Result<Seen<Vec<Service>>, CollectError> {
    let ask = || -> Result<Value, UbusError> {
        Ubus::connect(socket, Instant::now() + deadline)?.call("service", "list", &[])
    };
    let list =
        ask().map_err(|error| CollectError::Untold(format!("procd can't be asked: {error}")))?;
    let enabled: Vec<String> = file::entries(&root.join("etc/rc.d"), MAX_LINKS)
        .iter()
        .filter_map(|path| started(file::name(path)))
        .collect();
    let mut known = memory.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut services = services(&list, &mut known);
    // Without any link nobody knows.
    for service in services.iter_mut().filter(|_| !enabled.is_empty()) {
        service.wanted = service.wanted.or(Some(enabled.contains(&service.name)));
    }
    // The worst come first, so that the bound cuts off the least.
    services.retain(|service| rank(service) < REST);
    services.sort_by_key(|service| (rank(service), service.name.clone()));
    let mut gaps = Vec::new();
    if services.len() > MAX_SERVICES {
        let more = services.len() - MAX_SERVICES;
        gaps.push(format!("{more} more services were left out"));
        services.truncate(MAX_SERVICES);
    }
    Ok(Seen {
        value: services,
        gaps,
    })
}

/// `S19dnsmasq` starts dnsmasq at boot.
fn started(link: &str) -> Option<String> {
    let name = link
        .strip_prefix('S')?
        .trim_start_matches(|c: char| c.is_ascii_digit());
    (!name.is_empty()).then(|| name.to_owned())
}

fn rank(service: &Service) -> u8 {
    match service.state {
        ServiceState::Failed => 0,
        ServiceState::Starting => 1,
        _ if service.restarts.is_some_and(|restarts| restarts > 0) => 2,
        _ if is_of_the_network(&service.name) => 3,
        _ => REST,
    }
}

/// One record for each service: of several instances the worst is told.
fn services(list: &Value, known: &mut BTreeMap<(String, String), Known>) -> Vec<Service> {
    let before = std::mem::take(known);
    let tables = list.as_object().into_iter().flatten().take(MAX_UNITS);
    tables
        .filter_map(|(name, service)| {
            let instances = service.get("instances")?.as_object()?;
            let mut all: Vec<Service> = instances
                .iter()
                .take(MAX_INSTANCES)
                .map(|(instance, told)| {
                    let key = (name.clone(), instance.clone());
                    let (told, now) = judge(name, told, before.get(&key).copied());
                    known.insert(key, now);
                    told
                })
                .collect();
            let restarts = all.iter().filter_map(|instance| instance.restarts).sum();
            all.sort_by_key(rank);
            let mut worst = all.into_iter().next()?;
            worst.restarts = Some(restarts);
            worst.wanted = match service.get("autostart").and_then(Value::as_bool) {
                Some(false) => Some(false),
                Some(true) | None => None,
            };
            Some(worst)
        })
        .collect()
}

/// The services of one answer, for whoever has no memory of others.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn decode(list: &Value) -> Vec<Service> {
    services(list, &mut BTreeMap::new())
}

fn judge(name: &str, told: &Value, before: Option<Known>) -> (Service, Known) {
    let number = |key: &str| told.get(key).and_then(Value::as_i64);
    let running = told.get("running").and_then(Value::as_bool) == Some(true);
    let respawn = told.get("respawn").is_some_and(Value::is_object);
    // procd gives 128 + N for signal N.
    let code = number("exit_code").filter(|_| !running).unwrap_or(0);
    let mut now = before.unwrap_or_default();
    let pid = number("pid");
    if running && now.pid.is_some() && now.pid != pid {
        now.restarts = now.restarts.saturating_add(1);
    }
    now.pid = pid.or(now.pid);
    let was_running = before.map(|before| before.running);
    now.running = running;
    let state = match (running, respawn) {
        (true, _) => ServiceState::Running,
        // It ended a moment ago, and is started again in some seconds, unless procd has had enough of it.
        (false, true) if was_running.unwrap_or(code == 0) => ServiceState::Starting,
        (false, true) => ServiceState::Failed,
        (false, false) if code != 0 => ServiceState::Failed,
        (false, false) => ServiceState::Stopped,
    };
    let signal = code.checked_sub(SIGNALLED).filter(|n| (1..=64).contains(n));
    let plain = name.chars().filter(|c| !c.is_control());
    let service = Service {
        name: plain.take(MAX_TEXT).collect(),
        manager: ServiceManager::Procd,
        state,
        wanted: None,
        restarts: Some(now.restarts),
        exit_code: (!running && signal.is_none())
            .then(|| i32::try_from(code).ok())
            .flatten(),
        signal: signal.and_then(|n| i32::try_from(n).ok()),
        result: None,
        since: None,
    };
    (service, now)
}

/// The rank of services that nobody here asks about.
const REST: u8 = 4;
const SIGNALLED: i64 = 128;
const MAX_LINKS: usize = 500;
const MAX_UNITS: usize = 1000;
const MAX_INSTANCES: usize = 100;

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::collect::services;
    use crate::collect::ubus::serve::serve;

    const LONG: Duration = Duration::from_secs(60);

    fn look(root: &Path, memory: &Memory) -> Vec<Service> {
        services::collect(root, LONG, memory).unwrap().value
    }

    fn list(pid: i64) -> Value {
        json!({
            "crashed": { "instances": { "instance1": {
                "running": false, "exit_code": 139, "command": ["/usr/sbin/crashed"],
            } } },
            "dnsmasq": { "instances": {
                "cfg01": { "running": true, "pid": pid, "respawn": { "threshold": 3600, "timeout": 5, "retry": 5 } },
                "cfg02": { "running": false, "exit_code": 1, "respawn": { "threshold": 3600, "timeout": 5, "retry": 5 } },
            } },
            "log": { "instances": { "logd": { "running": true, "pid": 9 } } },
            "odhcpd": { "autostart": false, "instances": { "odhcpd": { "running": true, "pid": 8 } } },
            "once": { "instances": { "instance1": { "running": false, "exit_code": 0 } } },
            "system": {},
        })
    }

    #[test]
    fn services_of_procd_are_told_the_worst_first_and_strangers_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/rc.d")).unwrap();
        fs::write(root.path().join("etc/rc.d/S19dnsmasq"), "").unwrap();
        fs::write(root.path().join("etc/rc.d/K19crashed"), "").unwrap();
        serve(root.path(), |object, _, _| {
            (object == "service").then(|| list(100))
        });
        let told = look(root.path(), &Memory::default());
        let names: Vec<_> = told.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["crashed", "dnsmasq", "odhcpd"]);
        let [crashed, dnsmasq, odhcpd] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(crashed.manager, ServiceManager::Procd);
        assert_eq!(
            (crashed.state, crashed.signal),
            (ServiceState::Failed, Some(11))
        );
        assert_eq!((crashed.exit_code, crashed.wanted), (None, Some(false)));
        assert_eq!(
            (dnsmasq.state, dnsmasq.exit_code),
            (ServiceState::Failed, Some(1))
        );
        assert_eq!(dnsmasq.wanted, Some(true));
        assert_eq!(
            (odhcpd.state, odhcpd.wanted),
            (ServiceState::Running, Some(false))
        );
    }

    #[test]
    fn a_process_that_is_another_one_was_started_again() {
        let mut known = BTreeMap::new();
        for (pid, restarts) in [(100, 0), (100, 0), (101, 1), (107, 2)] {
            let told = services(&list(pid), &mut known);
            let dnsmasq = told
                .iter()
                .find(|service| service.name == "dnsmasq")
                .unwrap();
            assert_eq!(dnsmasq.restarts, Some(restarts), "{pid}");
        }
    }

    #[test]
    fn a_service_that_just_ended_is_started_again_and_one_that_stays_away_failed() {
        let respawned = |running: bool| {
            json!({ "x": { "instances": { "i": {
                "running": running, "pid": 5, "exit_code": 1, "respawn": {},
            } } } })
        };
        let mut known = BTreeMap::new();
        let mut state = |running| services(&respawned(running), &mut known)[0].state;
        assert_eq!(state(true), ServiceState::Running);
        assert_eq!(state(false), ServiceState::Starting);
        assert_eq!(state(false), ServiceState::Failed);
        assert_eq!(state(true), ServiceState::Running);
    }

    #[test]
    fn a_bus_that_hides_the_services_or_hangs_up_says_so() {
        let root = tempfile::tempdir().unwrap();
        serve(root.path(), |_, _, _| None);
        let why = services::collect(root.path(), LONG, &Memory::default()).unwrap_err();
        assert!(why.to_string().contains("acl.d"), "{why}");
        let other = tempfile::tempdir().unwrap();
        let folder = other.path().join("var/run/ubus");
        fs::create_dir_all(&folder).unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.join("ubus.sock")).unwrap());
        let why = services::collect(other.path(), LONG, &Memory::default()).unwrap_err();
        assert!(why.to_string().contains("procd can't be asked"), "{why}");
    }
}
