//! Services: whether they run, and what is done to them, through systemd or procd natively.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::wireguard::{PeerState, PublicKey};
use crate::broker::World;
use crate::collect::aside;
use crate::collect::ubus::{self, Argument, Ubus, UbusError};

mod systemd;

/// Longest wait for one deed: a service that takes longer to start is waited for by nobody.
const DEED: Duration = Duration::from_secs(60);

/// What is done to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It runs afterwards.
    Start,
    /// It does not.
    Stop,
    /// It is ended and started.
    Restart,
    /// It reads its configuration again.
    Reload,
}

impl Deed {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }
}

/// Why a service could not be asked about or changed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Nobody here starts services in a way that can be asked.
    #[error("no manager of services answers here (systemd over D-Bus, or procd over ubus)")]
    NoManager,
    /// It is not installed.
    #[error("no such service")]
    NoService,
    /// Only what runs can read its configuration again.
    #[error("it does not run")]
    NotRunning,
    /// It did not come up.
    #[error("it failed afterwards: its log says why")]
    Failed,
    /// No ubus.
    #[error("not applied until reload: there is no ubus here")]
    NoUbus,
    /// The manager.
    #[error("{0}")]
    Manager(String),
    /// No thread for asking.
    #[error("it could not be asked about: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<UbusError> for ServiceError {
    fn from(error: UbusError) -> Self {
        Self::Manager(error.to_string())
    }
}

/// The services and tunnels of a shadow: as they are on the device, and as the script would leave them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    running: Arc<Mutex<BTreeMap<String, bool>>>,
    has_ubus: bool,
    manager: &'static str,
    peers: Arc<Mutex<BTreeMap<String, Vec<PeerState>>>>,
}

impl Recorded {
    /// As they are on the device.
    pub(crate) async fn of<'a>(
        world: &World,
        names: impl Iterator<Item = &'a String>,
    ) -> Result<Self, ServiceError> {
        let mut running = BTreeMap::new();
        for name in names {
            running.insert(name.clone(), is_running(world, name).await?);
        }
        Ok(Self {
            running: Arc::new(Mutex::new(running)),
            has_ubus: ubus::socket(&world.root).is_some(),
            manager: owner(world),
            peers: Arc::default(),
        })
    }

    /// With the peers of these interfaces, too.
    pub(crate) fn with_peers(self, peers: BTreeMap<String, Vec<PeerState>>) -> Self {
        Self {
            peers: Arc::new(Mutex::new(peers)),
            ..self
        }
    }

    /// The peers of an interface.
    pub(crate) fn peers(&self, dev: &str) -> Vec<PeerState> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(dev).cloned().unwrap_or_default()
    }

    /// What would be done to one.
    pub(crate) fn set_peer(&self, dev: &str, key: PublicKey, peer: Option<&PeerState>) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let list = peers.entry(dev.to_owned()).or_default();
        list.retain(|p| p.key != key);
        list.extend(peer.cloned());
    }

    fn is_running(&self, name: &str) -> Option<bool> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(name).copied()
    }

    fn act(&self, name: &str, deed: Deed) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(name.to_owned(), deed != Deed::Stop);
    }
}

/// Who starts services here.
#[derive(Clone, Debug)]
enum Manager {
    Systemd(PathBuf),
    Procd(PathBuf),
}

impl Manager {
    fn of(world: &World) -> Result<Self, ServiceError> {
        let bus = world.root.join("run/dbus/system_bus_socket");
        if world.root.join("run/systemd/system").exists() && bus.exists() {
            return Ok(Self::Systemd(bus));
        }
        ubus::socket(&world.root)
            .map(Self::Procd)
            .ok_or(ServiceError::NoManager)
    }
}

/// The manager's name, for who owns a service.
pub(crate) fn owner(world: &World) -> &'static str {
    if let Some(recorded) = world.recorded() {
        return recorded.manager;
    }
    match Manager::of(world) {
        Ok(Manager::Systemd(_)) => "systemd",
        Ok(Manager::Procd(_)) => "procd",
        Err(_) => "nobody",
    }
}

/// True if it runs.
pub(crate) async fn is_running(world: &World, name: &str) -> Result<bool, ServiceError> {
    if let Some(recorded) = world.recorded() {
        return recorded.is_running(name).ok_or(ServiceError::NoService);
    }
    let (manager, name) = (Manager::of(world)?, name.to_owned());
    aside::run_alone("aizen-service", move || {
        let until = Instant::now() + DEED;
        match manager {
            Manager::Systemd(bus) => systemd::is_running(&bus, &name, until),
            Manager::Procd(socket) => procd_runs(&mut Ubus::connect(&socket, until)?, &name),
        }
    })
    .await?
}

/// Does it and waits until it is done.
pub(crate) async fn act(world: &World, name: &str, deed: Deed) -> Result<(), ServiceError> {
    if let Some(recorded) = world.recorded() {
        recorded.act(name, deed);
        return Ok(());
    }
    let (manager, name) = (Manager::of(world)?, name.to_owned());
    aside::run_alone("aizen-service", move || {
        let until = Instant::now() + DEED;
        match manager {
            Manager::Systemd(bus) => systemd::act(&bus, &name, deed, until),
            Manager::Procd(socket) => {
                let mut ubus = Ubus::connect(&socket, until)?;
                let arguments = [
                    ("name", Argument::Text(&name)),
                    ("action", Argument::Text(deed.word())),
                ];
                // It answers when the service's script has ended.
                ubus.call("rc", "init", &arguments)?;
                let runs = procd_runs(&mut ubus, &name)?;
                match deed {
                    Deed::Start | Deed::Restart if !runs => Err(ServiceError::Failed),
                    _ => Ok(()),
                }
            }
        }
    })
    .await?
}

/// Makes it run or not, as it did; with `again`, one that ran reads its configuration anew.
pub(crate) async fn settle(
    world: &World,
    name: &str,
    before: bool,
    again: Option<Deed>,
) -> Result<(), ServiceError> {
    match (before, is_running(world, name).await?) {
        (true, false) => act(world, name, Deed::Start).await,
        (false, true) => act(world, name, Deed::Stop).await,
        (true, true) => match again {
            Some(deed @ (Deed::Restart | Deed::Reload)) => act(world, name, deed).await,
            Some(Deed::Start | Deed::Stop) | None => Ok(()),
        },
        (false, false) => Ok(()),
    }
}

fn procd_runs(ubus: &mut Ubus, name: &str) -> Result<bool, ServiceError> {
    let found = ubus.call("rc", "list", &[("name", Argument::Text(name))])?;
    let service = found.get(name).ok_or(ServiceError::NoService)?;
    // A script that procd does not watch has no state: it ran once, at boot.
    Ok(service["running"].as_bool().unwrap_or(true))
}

/// True if there is a ubus that configuration can be announced on, or a shadow that records it.
pub(crate) fn can_announce(world: &World) -> bool {
    match world.recorded() {
        Some(recorded) => recorded.has_ubus,
        None => ubus::socket(&world.root).is_some(),
    }
}

/// What `reload_config` of OpenWrt does for one package: tells procd that its configuration changed.
pub(crate) async fn announce(world: &World, package: &str) -> Result<(), ServiceError> {
    if world.recorded().is_some() {
        return Ok(());
    }
    let socket = ubus::socket(&world.root).ok_or(ServiceError::NoUbus)?;
    let package = package.to_owned();
    aside::run_alone("aizen-service", move || {
        let mut ubus = Ubus::connect(&socket, Instant::now() + DEED)?;
        let data = [("package", Argument::Text(&package))];
        let arguments = [
            ("type", Argument::Text("config.change")),
            ("data", Argument::Table(&data)),
        ];
        ubus.call("service", "event", &arguments)?;
        Ok(())
    })
    .await?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::ubus::serve::serve;

    /// A procd with one service, which says what it was told to do.
    fn procd(root: &std::path::Path) -> Arc<Mutex<Vec<String>>> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (heard, runs) = (Arc::clone(&told), Mutex::new(true));
        serve(root, move |object, method, arguments| {
            let mut runs = runs.lock().unwrap();
            let word = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
            match (object, method) {
                ("rc" | "service", "") => {}
                ("rc", "list") if word("name") == "dnsmasq" => {
                    return Some(json!({ "dnsmasq": { "running": *runs } }));
                }
                ("rc", "list") => {}
                ("rc", "init") => {
                    *runs = word("action") != "stop";
                    let said = format!("init {} {}", word("name"), word("action"));
                    heard.lock().unwrap().push(said);
                }
                ("service", "event") => {
                    let package = arguments["data"]["package"].as_str().unwrap_or_default();
                    let said = format!("event {} {package}", word("type"));
                    heard.lock().unwrap().push(said);
                }
                _ => return None,
            }
            Some(json!({}))
        });
        told
    }

    #[tokio::test]
    async fn procd_is_asked_and_told_over_ubus() {
        let root = tempfile::tempdir().unwrap();
        let asked = procd(root.path());
        let world = World::at(root.path());
        assert_eq!(owner(&world), "procd");
        assert!(is_running(&world, "dnsmasq").await.unwrap());
        assert!(matches!(
            is_running(&world, "other").await,
            Err(ServiceError::NoService)
        ));
        act(&world, "dnsmasq", Deed::Stop).await.unwrap();
        assert!(!is_running(&world, "dnsmasq").await.unwrap());
        for _ in 0..2 {
            settle(&world, "dnsmasq", true, None).await.unwrap();
        }
        settle(&world, "dnsmasq", true, Some(Deed::Reload))
            .await
            .unwrap();
        announce(&world, "network").await.unwrap();
        assert_eq!(
            *asked.lock().unwrap(),
            [
                "init dnsmasq stop",
                "init dnsmasq start",
                "init dnsmasq reload",
                "event config.change network"
            ]
        );
    }

    #[tokio::test]
    async fn without_a_manager_that_is_said() {
        let root = tempfile::tempdir().unwrap();
        let world = World::at(root.path());
        let error = is_running(&world, "dnsmasq").await.unwrap_err();
        assert!(
            error.to_string().contains("no manager of services"),
            "{error}"
        );
        let error = announce(&world, "network").await.unwrap_err();
        assert!(
            error.to_string().contains("not applied until reload"),
            "{error}"
        );
        assert!(!can_announce(&world));
    }
}
