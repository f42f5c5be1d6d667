//! The child: copies what is named, moves into its own namespaces, runs the script there, tells the effect.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use aizen_protocol::effect::{Effect, ObjectChange, ObjectKind, ScriptEnd, ScriptRun};
use aizen_protocol::limit;
use aizen_protocol::package::manifest::Risk;
use aizen_protocol::private::Text;
use aizen_sandbox::{End, Finished, Profile, ReadBind};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::look::{self, Watched};
use super::replica::{self, Original};
use super::way::{self, Ways};
use super::{ShadowRequest, Told};
use crate::broker::describe::visible;
use crate::broker::{self, World};
use crate::rollback::checkpoint::{Checkpoint, Network, Scope};
use crate::rollback::file::{Place, Times};
use crate::rollback::inverse::Inverse;
use crate::rollback::kernel::Kernel;
use crate::rollback::neighbour;
use crate::rollback::nft;
use crate::rollback::service::Recorded;
use crate::rollback::sysctl::{self, Pattern, SysctlKey};
use crate::rollback::wireguard;

/// Longest request, bytes: a script of the largest size as JSON numbers, and all around it.
const REQUEST: u64 = (limit::SCRIPT as u64) * 4 + (8 << 20);
/// Size of the shadow's files in memory.
const FILES: &str = "size=64m,mode=0700";
/// State of network managers that says who owns an interface.
const MARKERS: [&str; 2] = ["run/systemd/netif/links", "run/NetworkManager/devices"];

/// The hidden subcommand: a request on standard input, an effect on standard output.
pub fn shadow_main() -> ! {
    let told = match told() {
        Ok(effect) => Told::Effect(effect),
        Err(error) => Told::Failed(error.to_string()),
    };
    let written = serde_json::to_vec(&told)
        .map_err(io::Error::from)
        .and_then(|bytes| io::stdout().write_all(&bytes));
    std::process::exit(i32::from(written.is_err()))
}

/// What could not be done on the way to an effect.
#[derive(Debug, thiserror::Error)]
enum ShadowError {
    #[error("the request can't be read: {0}")]
    Request(#[source] io::Error),
    #[error("the shadow can't be built: {doing}: {source}")]
    Build {
        doing: &'static str,
        source: io::Error,
    },
    #[error("{0}")]
    Grant(#[from] broker::GrantError),
    #[error("{0}")]
    File(#[from] crate::rollback::FileError),
    #[error("the shadow's state can't be read: {0}")]
    State(#[from] crate::rollback::checkpoint::CheckpointError),
    #[error("the script could not be started: {0}")]
    Sandbox(#[from] aizen_sandbox::SandboxError),
}

fn build<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> ShadowError {
    move |source| ShadowError::Build {
        doing,
        source: source.into(),
    }
}

fn told() -> Result<Effect, ShadowError> {
    // Nothing of it may outlive who asked.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(build("tie its life to its parent's"))?;
    let mut input = Vec::new();
    io::stdin()
        .lock()
        .take(REQUEST)
        .read_to_end(&mut input)
        .map_err(ShadowError::Request)?;
    let request: ShadowRequest =
        serde_json::from_slice(&input).map_err(|e| ShadowError::Request(e.into()))?;
    let scope = if request.powers.any() {
        Scope::whole(&request.grants)?
    } else {
        Scope::of(&request.grants)?
    };
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(build("start a runtime"))
    };
    // A runtime of its own for each namespace: its threads keep the one that they were born in.
    let original = runtime()?
        .block_on(look(&scope, &World::at(&request.root)))
        .map_err(build("look at the network"))?;
    let root = files(&request, &scope, &original.network)?;
    runtime()?.block_on(run(request, root, &original, &scope))
}

async fn look(scope: &Scope, world: &World) -> io::Result<Original> {
    let kernel = Kernel::open().map_err(io::Error::other)?;
    let network = Network::read(&kernel).await.map_err(io::Error::other)?;
    let scope = scope.clone().with_links(&network.links);
    let mut patterns: Vec<Pattern> = scope.patterns().cloned().collect();
    // What decides where packets go, whatever the script is about.
    for key in [
        "net.ipv4.ip_forward",
        "net.ipv6.conf.all.forwarding",
        "net.ipv6.conf.all.disable_ipv6",
        "net.ipv4.conf.all.rp_filter",
        "net.ipv4.conf.all.arp_ignore",
        "net.ipv4.conf.all.arp_filter",
        "net.ipv4.conf.all.src_valid_mark",
        "net.ipv4.conf.all.promote_secondaries",
    ] {
        patterns.extend(SysctlKey::parse(key).iter().flat_map(SysctlKey::moves));
    }
    let names = network.names();
    let heard = neighbour::heard(&kernel, &names).await;
    let tables = match nft::read().await {
        Err(error) if scope.tables() => return Err(io::Error::other(error)),
        tables => tables,
    };
    let services = Recorded::of(world, scope.services())
        .await
        .map_err(io::Error::other)?;
    let mut peers = std::collections::BTreeMap::new();
    for dev in scope.tunnels() {
        let read = wireguard::peers(world, dev).await;
        peers.insert(dev.clone(), read.map_err(io::Error::other)?);
    }
    let services = services.with_peers(peers);
    Ok(Original {
        network,
        services,
        filters: tables.as_ref().err().map(ToString::to_string),
        tables: tables.ok(),
        heard: heard.map_err(io::Error::other)?,
        listening: look::listening(),
        sysctls: sysctl::read_all(&patterns),
    })
}

/// Copies the named files into memory of this process's own mount namespace, and gives their root.
fn files(
    request: &ShadowRequest,
    scope: &Scope,
    network: &Network,
) -> Result<PathBuf, ShadowError> {
    let mut copies = Vec::new();
    for path in scope.files() {
        if let Some(place) = scope.place(&request.root, path)? {
            copies.push((place.target().to_owned(), place.read()?));
        }
    }
    let markers = markers(&request.root, network);
    unshare(CloneFlags::CLONE_NEWNS).map_err(build("make a mount namespace"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(build("part its mounts from the device's"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("aizen-shadow"),
        &request.scratch,
        Some("tmpfs"),
        flags,
        Some(FILES),
    )
    .map_err(build("mount memory for its files"))?;
    let root = request.scratch.join("root");
    folder(&root)?;
    for (path, state) in &copies {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        folder(&root.join(parent.trim_start_matches('/')))?;
        if let Some(place) = Place::find(&root, path, &|_| false)? {
            place.make(state, Times::Kept)?;
        }
    }
    for (path, content) in markers {
        let path = root.join(path);
        folder(path.parent().unwrap_or(&root))?;
        std::fs::write(path, content).map_err(build("copy a marker"))?;
    }
    // A granted link leads to a granted file: it is the same link here.
    for path in scope.files() {
        link(&request.root, &root, path).map_err(build("copy a link"))?;
    }
    Ok(root)
}

/// The first link on the way to `path`, if there is one: behind it another granted path begins.
fn link(from: &Path, to: &Path, path: &str) -> io::Result<()> {
    let mut way = PathBuf::new();
    for part in Path::new(path.trim_start_matches('/')) {
        way.push(part);
        if let Ok(target) = std::fs::read_link(from.join(&way)) {
            let link = to.join(&way);
            std::fs::create_dir_all(link.parent().unwrap_or(to))?;
            return match std::os::unix::fs::symlink(target, link) {
                // Two paths may share the link.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
    }
    Ok(())
}

fn folder(path: &Path) -> Result<(), ShadowError> {
    // Readable: the sandbox opens what is declared before it drops root, and the script is not root.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(build("make a folder"))
}

fn markers(root: &Path, network: &Network) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for link in &network.links {
        for folder in MARKERS {
            let path = Path::new(folder).join(link.seen.index.to_string());
            let mut content = Vec::new();
            let read = std::fs::File::open(root.join(&path))
                .and_then(|file| file.take(4096).read_to_end(&mut content));
            if read.is_ok() {
                found.push((path, content));
            }
        }
    }
    found
}

async fn run(
    request: ShadowRequest,
    root: PathBuf,
    original: &Original,
    scope: &Scope,
) -> Result<Effect, ShadowError> {
    let mut replica = replica::enter(original)
        .await
        .map_err(build("replicate the network"))?;
    let named = look::named(&request.root, scope);
    let watched = Watched::begin(&mut replica, &request, original, named).await;
    let world = World::shadow(root, original.services.clone());
    let network = || async {
        Network::read(&replica.kernel)
            .await
            .map_err(io::Error::other)
            .map_err(build("look at the replica"))
    };
    let before = Ways::read(&replica.kernel, &network().await?, &request.uplink).await;
    let state = if request.powers.any() {
        Some(Checkpoint::take_scope(&world, scope.clone()).await?)
    } else {
        None
    };
    let (finished, served, undeclared) = script(&request, &world, state.as_ref()).await?;
    let after = Ways::read(&replica.kernel, &network().await?, &request.uplink).await;
    let management_path = match (before, after) {
        (Ok(before), Ok(after)) => way::touched(&before, &after, &served.changes),
        // Not known is not safe.
        _ => !served.changes.is_empty(),
    };
    let named = look::left(&world.root, &request.root, scope);
    let judged = look::end(watched, &replica, named, &served.changes).await;
    let management_path = management_path || judged.management;
    let not_rehearsed = not_rehearsed(&request, &served.changes, judged.not_judged, &replica.notes);
    Ok(Effect {
        irreversible: irreversible(&served.changes),
        changes: served.changes,
        undeclared,
        not_rehearsed,
        management_path,
        risk: if management_path || !judged.lock_outs.is_empty() {
            Risk::High.max(request.risk)
        } else {
            request.risk
        },
        lock_outs: judged.lock_outs,
        script: script_run(finished),
    })
}

/// Runs the script; what it did, and what of it is not declared.
async fn script(
    request: &ShadowRequest,
    world: &World,
    state: Option<&Checkpoint>,
) -> Result<(Finished, broker::Served, Vec<Text>), ShadowError> {
    let (ours, theirs) = broker::pair().map_err(build("make the broker's socket"))?;
    let profile = profile(request, &world.root, theirs);
    let sandbox =
        tokio::task::spawn_blocking(move || aizen_sandbox::run(profile, &AtomicBool::new(false)));
    // Nothing here outlives the run, so there is nothing to write down first.
    let mut brokered = Vec::new();
    let mut before_act = |inverse: &Inverse| {
        brokered.push(inverse.clone());
        Ok(())
    };
    let mut after_act = |_: &ObjectChange| ();
    let serve = broker::serve(
        world,
        &request.grants,
        ours,
        &mut before_act,
        &mut after_act,
    );
    let (finished, mut served) = tokio::join!(sandbox, serve);
    let finished = finished
        .map_err(io::Error::other)
        .map_err(build("wait for the script"))??;
    let mut undeclared = Vec::new();
    if let Some(state) = state {
        let now = state.again(world).await?;
        let judged = broker::direct::judge(world, &request.grants, state, &now, &brokered)?;
        served.changes.extend(judged.changes);
        undeclared = judged.undeclared;
    }
    Ok((finished, served, undeclared))
}

/// What this shadow could not show.
fn not_rehearsed(
    request: &ShadowRequest,
    changes: &[ObjectChange],
    not_judged: Vec<String>,
    notes: &[String],
) -> Vec<Text> {
    let mut told = vec![
        "whether anything answers: nobody is at the other end of the shadow's links".to_owned(),
    ];
    if request.powers.any() {
        told.push(
            "what the script does to queueing, next hops, address labels and VLANs that the device has: the shadow has none"
                .to_owned(),
        );
    }
    for (kind, word) in [
        (ObjectKind::Service, "service"),
        (ObjectKind::Wireguard, "wireguard"),
    ] {
        let deeds = changes.iter().filter(|change| change.kind == kind);
        told.extend(deeds.map(|change| format!("{word} {}: recorded, not done", change.object)));
    }
    told.extend(not_judged);
    told.extend(notes.iter().cloned());
    told.into_iter().map(Text).collect()
}

fn profile(request: &ShadowRequest, root: &Path, broker: std::os::fd::OwnedFd) -> Profile {
    let mut profile = Profile::new(&request.interpreter, request.script.clone());
    profile.environment.clone_from(&request.environment);
    profile.broker = Some(broker);
    profile.change_tool = Some(request.helper.clone());
    profile.helper.clone_from(&request.helper);
    profile.reads = request
        .reads
        .iter()
        .filter_map(|path| {
            let relative = path.strip_prefix("/").ok()?;
            // The private copy if there is one: what the script wrote is what it reads.
            let own = [root, &request.root].map(|base| base.join(relative));
            let source = own.into_iter().find(|source| source.exists())?;
            Some(ReadBind {
                source,
                target: path.clone(),
            })
        })
        .collect();
    profile.limits = aizen_sandbox::Limits {
        memory_bytes: u64::from(request.limits.memory_mib) << 20,
        processes: request.limits.processes,
        output_bytes: (request.limits.output_kib as usize) << 10,
        scratch_bytes: u64::from(request.limits.scratch_mib) << 20,
        cpu_seconds: request.limits.cpu_s,
    };
    if request
        .reads
        .iter()
        .any(|path| path.starts_with("/proc/net"))
    {
        profile.network = aizen_sandbox::Network::Host;
    }
    if request.powers.any() {
        profile.network = aizen_sandbox::Network::Host;
        profile.powers = request.powers;
    }
    profile.timeout = request.timeout;
    profile.grace = request.grace;
    profile.min_level = request.min_isolation;
    if let Some((uid, gid)) = request.user {
        profile.uid = uid;
        profile.gid = gid;
    }
    profile
}

fn script_run(finished: Finished) -> ScriptRun {
    ScriptRun {
        end: match finished.end {
            End::Exited(code) => ScriptEnd::Exited(code),
            End::Signalled(signal) => ScriptEnd::Signalled(signal),
            End::TimedOut | End::Cancelled => ScriptEnd::TimedOut,
        },
        took_ms: u32::try_from(finished.took.as_millis()).unwrap_or(u32::MAX),
        output: Text(visible(&String::from_utf8_lossy(&finished.output))),
        output_bytes: finished.output_bytes,
        leftover_processes: finished.leftover_processes,
    }
}

/// What no undo brings back.
pub(crate) fn irreversible(changes: &[ObjectChange]) -> Vec<Text> {
    let mut devices: Vec<&str> = changes
        .iter()
        .filter(|c| c.kind == ObjectKind::Link && c.diff.0.contains(" down "))
        .map(|c| c.object.0.as_str())
        .collect();
    devices.sort_unstable();
    devices.dedup();
    let mut told: Vec<Text> = devices
        .into_iter()
        .map(|dev| Text(format!("connections over {dev} are cut while it is down")))
        .collect();
    let mut services: Vec<&str> = changes
        .iter()
        .filter(|c| c.kind == ObjectKind::Service)
        .filter(|c| c.diff.0.contains("restarted") || c.diff.0.contains(" stopped\n"))
        .map(|c| c.object.0.as_str())
        .collect();
    services.sort_unstable();
    services.dedup();
    told.extend(services.into_iter().map(|name| {
        Text(format!(
            "what {name} held in memory, and connections that it served, end with its process"
        ))
    }));
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollback::file::FileState;

    #[test]
    fn an_absent_file_has_nothing_to_copy() {
        let folder = tempfile::tempdir().unwrap();
        let scope =
            Scope::of(&[serde_json::from_str(r#"{"file":{"write":"/etc/x"}}"#).unwrap()]).unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        let place = scope.place(folder.path(), "/etc/x").unwrap().unwrap();
        assert_eq!(place.read().unwrap(), FileState::Absent);
        assert_eq!(place.target(), "/etc/x");
    }
}
