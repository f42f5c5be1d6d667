//! Keeps the rescue profile where the network is known good, and puts it back where undoing did not bring back what held.

use std::rc::Rc;
use std::time::Duration;

use aizen_protocol::control::{RescueEnd, RescueProfile};
use aizen_protocol::id::ChangeId;
use aizen_protocol::outcome::End;
use tokio::task::JoinHandle;

use super::ExecutorError;
use super::shared::Shared;
use crate::change::Event;
use crate::collect::aside;
use crate::confirm::probe::{Own, Probes};
use crate::rescue::decide::{self, Rescue};
use crate::rescue::plan::{self, Plan};
use crate::rescue::profile::{Place, Profile, ProfileError, Source};
use crate::rollback::checkpoint::{CheckpointError, Network, Scope};
use crate::rollback::difference::Difference;
use crate::rollback::kernel::Kernel;
use crate::rollback::{Checkpoint, NftError, link, restore};
use crate::verify::Policy;

/// Between two passes of probes: an address is resolved, a port of a switch comes up.
const PAUSE: Duration = Duration::from_secs(1);
/// Passes before something that held counts as lost.
const PASSES: u32 = 3;
/// Passes after putting back before it counts as lost for good: links need seconds to come up.
const PASSES_AFTER: u32 = 8;
/// Objects that an outcome names of each list.
const NAMED: usize = 20;
/// Sentences that a person is shown of each list.
const SHOWN: usize = 500;

/// The network as it was beside the baseline's probes, if a snapshot does not hold it: what a service does with links and
/// routes is not the snapshot's.
pub(super) async fn network_of(before: &Checkpoint) -> Option<Network> {
    match &before.network {
        Some(network) => Some(network.clone()),
        None => Network::read(&Kernel::open().ok()?).await.ok(),
    }
}

/// Keeps the state before a change beside its script, if its probes held. Nothing waits for it.
pub(super) fn keep_before(
    shared: &Shared,
    change: &ChangeId,
    probes: &[Own],
    network: Option<Network>,
    before: &Checkpoint,
) -> Option<JoinHandle<()>> {
    let network = network.filter(|_| decide::is_good(probes) && wanted(shared))?;
    let profile = Profile {
        moment: shared.moment(),
        source: Source::Before {
            change: change.clone(),
        },
        held: decide::holding(probes),
        state: Checkpoint {
            scope: before.scope.network_alone(),
            network: Some(network),
            tables: before.tables.clone(),
            services: std::collections::BTreeMap::new(),
            peers: std::collections::BTreeMap::new(),
            sysctls: before.sysctls.clone(),
            beyond: None,
            files: std::collections::BTreeMap::new(),
        },
    };
    let place = place(shared);
    Some(tokio::spawn(async move {
        told(keep(place, profile).await);
    }))
}

/// Keeps the network as it is, if it is known good: once none is kept, and after a change ended well.
pub(super) async fn keep_known_good(shared: Rc<Shared>, ended: bool) {
    if !wanted(&shared) || at_work(&shared) || shared.ledger.borrow().blocking().is_some() {
        return;
    }
    let newest = newest(&shared);
    let source = match &newest {
        Some((change, Some(End::Confirmed | End::RolledBack))) if ended => Source::After {
            change: change.clone(),
        },
        _ if place(&shared).is_taken() => return,
        _ => Source::First,
    };
    let probes = probe(&shared).await;
    if !decide::is_good(&probes) {
        tracing::debug!("the network is not known good: the rescue profile stays as it is");
        return;
    }
    let state = match state(&shared).await {
        Ok(state) => state,
        Err(error) => {
            tracing::warn!(%error, "no rescue profile is kept");
            return;
        }
    };
    let moment = shared.moment();
    let profile = Profile {
        moment,
        source,
        held: decide::holding(&probes),
        state,
    };
    // One that began meanwhile may be in what was just read.
    if at_work(&shared) || newest != self::newest(&shared) {
        return;
    }
    told(keep(place(&shared), profile).await);
}

/// Keeps the network as it is because a person says so.
pub(super) async fn save(shared: &Shared, uid: u32) -> Result<(), String> {
    let probes = probe(shared).await;
    if !decide::is_good(&probes) {
        let silent = probes.iter().filter(|p| !p.holds && !p.nothing);
        let silent: Vec<&str> = silent.map(|p| p.name.as_str()).collect();
        return Err(match silent.as_slice() {
            [] => "nothing beyond this device can be asked whether this network is good: there is no default gateway, and no name to resolve (probe.names)".to_owned(),
            silent => format!("this network is not good, so it is not kept: no answer to {}", silent.join(", ")),
        });
    }
    let state = state(shared).await.map_err(|e| e.to_string())?;
    let profile = Profile {
        moment: shared.moment(),
        source: Source::Asked { uid },
        held: decide::holding(&probes),
        state,
    };
    keep(place(shared), profile).await.map(drop)
}

/// The profile beside the network as it is.
pub(super) async fn show(shared: &Shared) -> Result<Option<RescueProfile>, String> {
    let Some(profile) = load(shared).await? else {
        return Ok(None);
    };
    let plan = compare(shared, &profile).await?;
    let lost = decide::lost(&profile.held, &probe(shared).await);
    Ok(Some(RescueProfile {
        since: profile.moment.at,
        this_boot: profile.is_of(&shared.moment()),
        source: profile.source.to_string(),
        lost,
        differs: sentences(plan.put.iter().map(ToString::to_string).collect(), SHOWN),
        left: sentences(left(&plan), SHOWN),
        held: profile.held,
    }))
}

/// Puts the profile back because a person says so.
pub(super) async fn apply(shared: &Shared) -> Result<RescueEnd, String> {
    let profile = load(shared).await?;
    let profile = profile
        .ok_or("no rescue profile is kept: say 'aizen rescue save' while the network is good")?;
    let mut end = put_back(shared, &profile).await?;
    for list in [&mut end.put_back, &mut end.failed, &mut end.left] {
        *list = sentences(std::mem::take(list), SHOWN);
    }
    Ok(end)
}

/// Puts the profile back after a change whose undoing did not bring back what held: at most once for a change in a boot,
/// and journalled before.
pub(crate) async fn after(
    shared: &Shared,
    change: &ChangeId,
    notes: &mut Vec<String>,
) -> Result<(), ExecutorError> {
    let policy = Policy::load(&shared.settings.policy);
    let allowed = policy.as_ref().is_ok_and(|policy| policy.rescue);
    let next = {
        let ledger = shared.ledger.borrow();
        let found = ledger.find(change);
        found.map_or(Rescue::No, |c| decide::next(c, &shared.boot, allowed))
    };
    match next {
        Rescue::IfLost => {}
        Rescue::No => return Ok(()),
        Rescue::CutShort => {
            notes.push("putting the rescue profile back was cut short; it is not tried twice in a boot: 'aizen rescue' shows what differs".to_owned());
            return Ok(());
        }
    }
    let profile = match load(shared).await {
        Ok(Some(profile)) => profile,
        Ok(None) => {
            notes.push("no rescue profile is kept that could be put back".to_owned());
            return Ok(());
        }
        Err(error) => {
            notes.push(format!("{error}; nothing was put back from it"));
            return Ok(());
        }
    };
    let lost = still_lost(shared, &profile.held, PASSES).await;
    if lost.is_empty() {
        notes.push("what held in the rescue profile holds, so it was not needed".to_owned());
        return Ok(());
    }
    tracing::error!(%change, ?lost, "putting the network back to the rescue profile");
    let boot = shared.boot.clone();
    shared.record(change, Event::RescueBegan { boot })?;
    let mut told = vec![format!(
        "{} was lost, so the network was put back to the rescue profile of {} ({})",
        lost.join(", "),
        profile.moment.at,
        profile.source
    )];
    match put_back(shared, &profile).await {
        Ok(end) => told.extend(in_words(end)),
        Err(error) => told.push(format!("which failed: {error}")),
    }
    Ok(shared.record(change, Event::Rescued { told })?)
}

fn in_words(end: RescueEnd) -> Vec<String> {
    let list = |what: &str, all: Vec<String>| {
        let some = !all.is_empty();
        some.then(|| format!("{what}: {}", sentences(all, NAMED).join("; ")))
    };
    let again = if end.lost.is_empty() {
        "what held in the rescue profile holds again".to_owned()
    } else {
        format!("still lost: {}", end.lost.join(", "))
    };
    let lists = [
        list("put back from the rescue profile", end.put_back),
        list("could not be put back from it", end.failed),
        list("left alone", end.left),
    ];
    lists.into_iter().flatten().chain([again]).collect()
}

async fn put_back(shared: &Shared, profile: &Profile) -> Result<RescueEnd, String> {
    let moment = shared.moment();
    let wanted = profile.state_at(&moment);
    let same_boot = profile.is_of(&moment);
    let planned = compare(shared, profile).await?;
    let choose = |now: &Checkpoint| plan::choose(&wanted, now, same_boot).put;
    let (now, failures) = restore::put_back(&shared.world, &wanted, &choose).await;
    let now = now.map_err(|error| format!("the network can't be read back: {error}"))?;
    let rest = plan::choose(&wanted, &now, same_boot);
    let stays = |d: &&Difference| rest.put.iter().any(|r| r.subject() == d.subject());
    let failed = rest.put.iter().map(|d| {
        let why = failures.get(&d.subject().to_string());
        why.map_or_else(|| d.to_string(), |why| format!("{d} ({why})"))
    });
    Ok(RescueEnd {
        put_back: planned
            .put
            .iter()
            .filter(|d| !stays(d))
            .map(ToString::to_string)
            .collect(),
        failed: failed.collect(),
        left: left(&rest),
        lost: still_lost(shared, &profile.held, PASSES_AFTER).await,
    })
}

/// What of the network now is not as in the profile.
async fn compare(shared: &Shared, profile: &Profile) -> Result<Plan, String> {
    let moment = shared.moment();
    let wanted = profile.state_at(&moment);
    let now = wanted.again(&shared.world).await;
    let now = now.map_err(|error| format!("the network can't be read: {error}"))?;
    Ok(plan::choose(&wanted, &now, profile.is_of(&moment)))
}

fn left(plan: &Plan) -> Vec<String> {
    let left = plan.left.iter();
    left.map(|(d, why)| format!("{d} ({why})")).collect()
}

/// The first of them, and how many more there are.
pub(super) fn sentences(mut all: Vec<String>, most: usize) -> Vec<String> {
    let more = all.len().saturating_sub(most);
    all.truncate(most);
    all.extend((more > 0).then(|| format!("and {more} more")));
    all
}

async fn still_lost(shared: &Shared, held: &[String], passes: u32) -> Vec<String> {
    let mut lost = Vec::new();
    for pass in 0..passes {
        if pass > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        lost = decide::lost(held, &probe(shared).await);
        if lost.is_empty() {
            break;
        }
    }
    lost
}

async fn probe(shared: &Shared) -> Vec<Own> {
    let settings = &shared.settings;
    let probes = Probes::own(settings.root.clone(), settings.name.as_deref()).await;
    let samples = probes.sample().await;
    probes.owns(&samples)
}

/// All of the network that a profile holds; without the program `nft` no tables.
async fn state(shared: &Shared) -> Result<Checkpoint, CheckpointError> {
    let links = link::read(&Kernel::open()?).await?;
    let scope = |tables| Scope::of_network(tables, links.iter().map(|l| l.name.as_str()));
    match Checkpoint::take_scope(&shared.world, scope(true)).await {
        Err(CheckpointError::Nft(NftError::Missing)) => {
            Checkpoint::take_scope(&shared.world, scope(false)).await
        }
        taken => taken,
    }
}

fn place(shared: &Shared) -> Place {
    Place::new(&shared.store, &shared.seal)
}

async fn load(shared: &Shared) -> Result<Option<Profile>, String> {
    let place = place(shared);
    let loaded = aside::run("rescue", move || place.load()).await;
    let loaded = loaded.map_err(|error| error.to_string())?;
    loaded.map_err(|error: ProfileError| error.to_string())
}

/// The network of the profile, if there is one.
pub(super) async fn kept_network(shared: &Shared) -> Option<Network> {
    let profile = load(shared).await.ok()??;
    profile.state.network
}

async fn keep(place: Place, profile: Profile) -> Result<bool, String> {
    let kept = aside::run("rescue", move || place.keep(&profile)).await;
    let kept = kept.map_err(|error| error.to_string())?;
    kept.map_err(|error| error.to_string())
}

fn told(kept: Result<bool, String>) {
    match kept {
        Ok(true) => tracing::info!("the network is kept as the rescue profile"),
        Ok(false) => tracing::debug!("the rescue profile says the same already"),
        Err(error) => tracing::warn!(%error, "the rescue profile stays as it is"),
    }
}

/// True if the policy wants a profile: a device that only observes needs none.
fn wanted(shared: &Shared) -> bool {
    let policy = Policy::load(&shared.settings.policy);
    policy.is_ok_and(|policy| policy.allow_changes && policy.rescue)
}

/// True while something changes the network.
pub(super) fn at_work(shared: &Shared) -> bool {
    shared.rescuing.get() || shared.ledger.borrow().open_change().is_some()
}

fn newest(shared: &Shared) -> Option<(ChangeId, Option<End>)> {
    let ledger = shared.ledger.borrow();
    let newest = ledger.newest()?;
    let end = newest.ended().map(|ended| ended.end);
    Some((newest.admission().change.clone(), end))
}
