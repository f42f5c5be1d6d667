//! One round on a device: the life of a change under what comes between, and what must hold afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aizen_agent::control::Connection;
use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::{ChangeId, Digest, PackageId};
use aizen_protocol::outcome::{End, Outcome, Stage};
use aizen_protocol::package::DeliveryMode;
use aizen_protocol::package::manifest::Probe;
use aizen_protocol::reason::Reason;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::plan::{Ending, Misfortune, Plan};
use super::world::{Picture, STRANGE, World, batch};
use crate::device::{Device, NONE, wait_until};
use crate::{crashes, faults};

/// Space for the state, bytes: a journal with its archives, and what is reserved.
const SPACE: &str = "size=48m";
const POLICY: &str = "allow_changes = true\nmin_isolation = 1\nrehearsed_only = false\nfiles = [\"/etc/resolv.conf\", \"/etc/hosts\", \"/etc/new.conf\"]\n";
/// As long as a restart takes, more or less: sometimes the keeper is first, sometimes the next executor.
const KEEPERS_GRACE: Duration = Duration::from_millis(200);
/// A life that was not measured yet.
const USUAL: Duration = Duration::from_millis(200);

/// A device, its surroundings, and what was learned of both.
pub(super) struct Ground {
    device: Device,
    world: World,
    mounts: BTreeSet<String>,
    entries: BTreeSet<String>,
    lengths: BTreeMap<Ending, Duration>,
    start: Duration,
    boots: u32,
    /// Executors that ended, and how many rounds ago.
    dead: Vec<(u32, u32)>,
}

/// What a round showed.
pub(super) struct Told {
    pub(super) result: Result<(), String>,
    pub(super) end: String,
    /// The journal's last word at each cut.
    pub(super) cut: Vec<String>,
}

/// What came back over the socket.
#[derive(Debug, Default)]
struct Heard {
    refused: Option<Reason>,
    ended: Option<(End, String)>,
    after: Option<Picture>,
    strange: bool,
    complaint: Option<String>,
}

impl Ground {
    pub(super) async fn new(mut device: Device) -> Self {
        let (state, saved) = (device.path("state"), device.path("saved"));
        crashes::copy(&state, &saved);
        mount(
            Some("none"),
            &state,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(SPACE),
        )
        .unwrap();
        crashes::copy(&saved, &state);
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_dir_all(&saved).unwrap();
        let boot = device.path("boot_id");
        fs::write(&boot, "0a0a0a0a-0000-4000-8000-000000000000\n").unwrap();
        let boot_id = "/proc/sys/kernel/random/boot_id";
        mount(Some(&boot), boot_id, NONE, MsFlags::MS_BIND, NONE).unwrap();
        device.policy(POLICY);
        // Keepers meet the restarted executors that they are to make room for.
        device.keeper_waits(
            KEEPERS_GRACE,
            aizen_agent::keeper::Settings::default().margin,
        );
        let mut world = World::new(&device);
        world.rebuild().await;
        let since = Instant::now();
        device.start().await;
        let mut entries = names(&state);
        entries.extend(["rehearsed", "rescue"].map(str::to_owned));
        Self {
            mounts: mounts(),
            entries,
            lengths: BTreeMap::new(),
            start: since.elapsed(),
            boots: 0,
            dead: Vec::new(),
            device,
            world,
        }
    }

    pub(super) async fn round(&mut self, plan: &Plan) -> Told {
        let mut told = Told {
            result: Ok(()),
            end: String::new(),
            cut: Vec::new(),
        };
        told.result = self.lived(plan, &mut told.cut, &mut told.end).await;
        told
    }

    async fn lived(
        &mut self,
        plan: &Plan,
        cut: &mut Vec<String>,
        end: &mut String,
    ) -> Result<(), String> {
        let before = self.world.picture();
        let mut package = self.device.package(&plan.script);
        package.manifest.operations.clone_from(&plan.grants);
        let hurried = plan.ending == Ending::Unconfirmed
            || matches!(plan.misfortune, Misfortune::Stopped { .. });
        package.manifest.confirm.within_s = if hurried { 1 } else { 60 };
        package.manifest.confirm.probes = vec![Probe::Ping("127.0.0.1".into())];
        if plan.uplink {
            package.delivery = DeliveryMode::Uplink;
            package.manifest.confirm.probes.push(Probe::Uplink(true));
        }
        let envelope = self.device.sign(&package);
        let heard = self.under_misfortune(plan, &envelope, cut).await?;
        let expected = self.back(plan, &before, cut).await;
        let outcome = self.report(plan, &heard, &package.id).await?;
        *end = match (&outcome, heard.refused) {
            (Some(outcome), _) => format!("{:?}", outcome.end),
            (None, Some(reason)) => format!("refused {reason:?}"),
            (None, None) => "never admitted".to_owned(),
        };
        let context = |what: &str| format!("{what}\n{heard:?}\ncut {cut:?}\n{outcome:?}");
        if let Some(complaint) = &heard.complaint {
            return Err(context(complaint));
        }
        self.state(plan, &heard, outcome.as_ref(), &expected)
            .map_err(|e| context(&e))?;
        if outcome.is_some() {
            self.never_again(&envelope).await.map_err(|e| context(&e))?;
        }
        if plan.again && outcome.is_some() {
            self.again(&expected, &heard)
                .await
                .map_err(|e| context(&e))?;
        }
        self.collected().await.map_err(|e| context(&e))?;
        self.nothing_left().await.map_err(|e| context(&e))?;
        if outcome.is_some_and(|o| o.end == End::Confirmed) {
            self.end_executor();
            self.world.rebuild().await;
            self.start().await;
        }
        Ok(())
    }

    fn end_executor(&mut self) {
        self.device.kill_alone();
    }

    async fn start(&mut self) {
        let since = Instant::now();
        self.device.start().await;
        self.start = (self.start * 7 + since.elapsed()) / 8;
    }

    async fn under_misfortune(
        &mut self,
        plan: &Plan,
        envelope: &Envelope,
        cut: &mut Vec<String>,
    ) -> Result<Heard, String> {
        let length = *self.lengths.get(&plan.ending).unwrap_or(&USUAL);
        let journal = self.device.path("state/journal");
        let words = last_word(&journal).0;
        if let Misfortune::Refused {
            call,
            error,
            number,
        } = &plan.misfortune
        {
            self.end_executor();
            let injected = format!("inject={call}:{error}:when={number}");
            let heard = if faults::start_under(&mut self.device, call, &injected).await {
                self.live(plan, envelope).await
            } else {
                Heard::default()
            };
            faults::end_under(&mut self.device).await;
            self.start().await;
            return Ok(heard);
        }
        let id = self.device.executor_id();
        let threat = threaten(&plan.misfortune, id, length, &self.device.path("state"));
        let since = Instant::now();
        let heard = self.live(plan, envelope).await;
        if plan.misfortune == Misfortune::None {
            let known = self.lengths.entry(plan.ending).or_insert(since.elapsed());
            *known = (*known * 7 + since.elapsed()) / 8;
        }
        if threat.is_some_and(|threat| threat.join().is_err()) {
            return Err("the misfortune itself failed".to_owned());
        }
        match &plan.misfortune {
            Misfortune::Killed { .. } | Misfortune::Rebooted { .. } => {
                self.end_executor();
                if matches!(plan.misfortune, Misfortune::Rebooted { .. }) {
                    self.device.kill_keepers();
                }
                self.dead.push((id, 0));
                let (now, word) = last_word(&journal);
                cut.push(if now == words {
                    "nothing".to_owned()
                } else {
                    word
                });
            }
            Misfortune::Full { .. } => {
                if heard.ended.is_none() && heard.refused.is_none() {
                    wait_until("the executor's end", || !self.device.lives()).await;
                }
                // A supervisor starts it again, at least once while the disk is full.
                if !self.device.lives() {
                    self.device.spawn();
                    tokio::time::sleep(self.start).await;
                    self.end_executor();
                }
                fs::remove_file(self.device.path("state/ballast")).ok();
                if !self.device.lives() {
                    self.end_executor();
                    self.start().await;
                }
            }
            Misfortune::None | Misfortune::Stopped { .. } | Misfortune::Refused { .. } => {}
        }
        Ok(heard)
    }

    /// Starts again what was ended; gives the state that must be found then, if it was not confirmed.
    async fn back(&mut self, plan: &Plan, before: &Picture, cut: &mut Vec<String>) -> Picture {
        let (recoveries, rebooted) = match &plan.misfortune {
            Misfortune::Killed { recoveries, .. } => (recoveries, false),
            Misfortune::Rebooted { recoveries, .. } => (recoveries, true),
            _ => {
                if plan.ending == Ending::LinkLost {
                    self.link_back().await;
                }
                return before.clone();
            }
        };
        let mut expected = before.clone();
        if rebooted {
            self.world.reboot().await;
            self.boots += 1;
            let boot = format!("0a0a0a0a-0000-4000-8000-{:012}\n", self.boots);
            fs::write(self.device.path("boot_id"), boot).unwrap();
            let fresh = self.world.picture();
            expected.kernel = fresh.kernel;
            expected.services = fresh.services;
        } else if plan.ending == Ending::LinkLost {
            self.link_back().await;
        }
        for part in recoveries {
            self.device.spawn();
            tokio::time::sleep(self.start.mul_f64(*part)).await;
            self.end_executor();
            let (_, word) = last_word(&self.device.path("state/journal"));
            cut.push(format!("recovery after {word}"));
        }
        self.start().await;
        if rebooted {
            self.device.told().await;
        }
        expected
    }

    async fn link_back(&self) {
        self.world.far("ip", &["link", "set", "far0", "up"], "");
        let carrier = || batch("ip", &["-o", "link", "show", "wan"], "").contains("LOWER_UP");
        wait_until("the carrier", carrier).await;
    }

    /// The one report of an admitted package.
    async fn report(
        &self,
        plan: &Plan,
        heard: &Heard,
        package: &PackageId,
    ) -> Result<Option<Outcome>, String> {
        let mut told = self.device.outcomes().await;
        // Another one that was refused meanwhile.
        told.retain(|outcome| outcome.end != End::Refused);
        if told.len() > 1 {
            return Err(format!("more than one report: {told:?}"));
        }
        let outcome = told.pop();
        if let Some(outcome) = &outcome
            && outcome.package.as_ref() != Some(package)
        {
            return Err(format!("a report of something else: {outcome:?}"));
        }
        match (&outcome, heard.refused, &heard.ended) {
            (Some(outcome), Some(reason), _) => {
                Err(format!("refused ({reason:?}) and reported: {outcome:?}"))
            }
            (None, _, Some(ended)) => Err(format!("it ended ({ended:?}) and is not reported")),
            (None, Some(Reason::NoSpace | Reason::StorageFailed), None)
                if matches!(plan.misfortune, Misfortune::Full { .. }) =>
            {
                Ok(None)
            }
            // A file of its own that can't be read is not guessed at.
            (None, Some(_), None) if matches!(plan.misfortune, Misfortune::Refused { .. }) => {
                Ok(None)
            }
            (None, Some(reason), None) => Err(format!("refused: {reason:?}")),
            (None, None, None) if plan.misfortune == Misfortune::None => {
                Err("neither refused nor reported".to_owned())
            }
            (None, None, None) => Ok(None),
            (Some(outcome), None, Some((end, _))) if outcome.end != *end => {
                Err(format!("told {end:?}, reported {outcome:?}"))
            }
            (Some(_), None, _) => Ok(outcome),
        }
    }

    /// Before or confirmed-after, never between.
    fn state(
        &self,
        plan: &Plan,
        heard: &Heard,
        outcome: Option<&Outcome>,
        expected: &Picture,
    ) -> Result<(), String> {
        if heard.strange && !matches!(plan.misfortune, Misfortune::Rebooted { .. }) {
            let route = batch("ip", &["route", "show", STRANGE], "");
            if route.is_empty() {
                return Err("somebody else's route is gone".to_owned());
            }
            batch("ip", &["route", "delete", STRANGE], "");
        }
        let end = outcome.map(|o| o.end);
        let now = self.world.picture();
        let wanted = match (end, plan.ending) {
            (Some(End::Confirmed), Ending::Confirmed) => {
                let mut after = heard.after.clone().ok_or("confirmed, and nobody did")?;
                if matches!(plan.misfortune, Misfortune::Rebooted { .. }) {
                    after.kernel.clone_from(&expected.kernel);
                    after.services.clone_from(&expected.services);
                }
                after
            }
            (Some(End::Confirmed), other) => {
                return Err(format!("confirmed, and it was to be {other:?}"));
            }
            _ => expected.clone(),
        };
        if now != wanted {
            return Err(format!(
                "{end:?}, and the state is not so:\n{}",
                wanted.differences(&now)
            ));
        }
        let usual = match plan.ending {
            _ if plan.rough => None,
            Ending::Confirmed => Some(End::Confirmed),
            _ => Some(End::RolledBack),
        };
        match end {
            Some(End::RollbackIncomplete) => Err("the rollback is incomplete".to_owned()),
            _ if plan.misfortune == Misfortune::None && usual.is_some() && end != usual => {
                Err(format!("expected {usual:?}"))
            }
            _ => Ok(()),
        }
    }

    async fn never_again(&self, envelope: &Envelope) -> Result<(), String> {
        let delivery = self.device.deliver(envelope);
        let mut life = self.device.execute(envelope.clone(), Some(delivery)).await;
        match life.recv::<ExecutorAnswer>().await {
            Ok(Some(ExecutorAnswer::Refused(refusal))) if refusal.reason == Reason::Replayed => {
                Ok(())
            }
            other => Err(format!("sent again: {other:?}")),
        }
    }

    /// A start with nothing to recover changes nothing.
    async fn again(&mut self, expected: &Picture, heard: &Heard) -> Result<(), String> {
        let (state, told) = (self.world.picture(), self.device.outcomes().await);
        self.end_executor();
        self.start().await;
        if self.device.outcomes().await != told {
            return Err("another start told something else".to_owned());
        }
        let now = self.world.picture();
        if now != state {
            return Err(format!(
                "another start changed something:\n{}",
                state.differences(&now)
            ));
        }
        // Which of the two it is was looked at before.
        let known = now == *expected
            || heard
                .after
                .as_ref()
                .is_some_and(|after| after.files == now.files);
        if known {
            Ok(())
        } else {
            Err("a third state".to_owned())
        }
    }

    /// The daemon takes the report.
    async fn collected(&self) -> Result<(), String> {
        let ExecutorAnswer::Outcomes { outcomes } =
            self.device.ask(ExecutorRequest::Outcomes).await
        else {
            return Err("no list of outcomes".to_owned());
        };
        for outcome in outcomes {
            let outcome = Digest::of(&outcome.unverified_payload().unwrap());
            self.device
                .ask(ExecutorRequest::Acknowledge { outcome })
                .await;
        }
        match self.device.outcomes().await.len() {
            0 => Ok(()),
            left => Err(format!("{left} reports are left")),
        }
    }

    async fn nothing_left(&mut self) -> Result<(), String> {
        let own = [self.device.executor_id(), self.world.peer()];
        let since = Instant::now();
        loop {
            let left = descendants(&own);
            if left.is_empty() {
                break;
            }
            if since.elapsed() > Duration::from_secs(20) {
                return Err(format!("processes are left: {left:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Those of other people's namespaces go when these are removed.
        let mounts: Vec<String> = mounts().difference(&self.mounts).cloned().collect();
        if !mounts.is_empty() {
            return Err(format!("mounts are left: {mounts:?}"));
        }
        let state = self.device.path("state");
        let strange: Vec<String> = names(&state)
            .into_iter()
            .filter(|name| !self.entries.contains(name) && !name.starts_with("journal-"))
            .chain(names(&state.join("snapshots")))
            .chain(names(&state.join("outcomes")))
            .collect();
        if !strange.is_empty() {
            return Err(format!("files are left: {strange:?}"));
        }
        // The next script's start takes them away, once they are empty.
        self.dead.retain(|(id, _)| !groups(*id).is_empty());
        for (id, rounds) in &mut self.dead {
            *rounds += 1;
            if *rounds > 20 {
                return Err(format!("control groups are left: {:?}", groups(*id)));
            }
        }
        Ok(())
    }

    /// Hands the package in and plays everybody's part until there is nothing more to hear.
    async fn live(&self, plan: &Plan, envelope: &Envelope) -> Heard {
        let mut heard = Heard::default();
        let Ok(mut connection) = Connection::connect(&self.device.path("executor.sock")).await
        else {
            return heard;
        };
        let request = ExecutorRequest::Execute {
            package: envelope.clone(),
            delivery: Some(self.device.deliver(envelope)),
            bindings: Bindings::new(),
        };
        if connection.send(&request).await.is_err() {
            return heard;
        }
        let listen = async {
            while let Ok(Some(answer)) = connection.recv::<ExecutorAnswer>().await {
                if self.hear(plan, envelope, answer, &mut heard).await {
                    break;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(120), listen)
            .await
            .is_err()
        {
            heard.complaint = Some("it neither ends nor dies".to_owned());
        }
        heard
    }

    /// True at the end.
    async fn hear(
        &self,
        plan: &Plan,
        envelope: &Envelope,
        answer: ExecutorAnswer,
        heard: &mut Heard,
    ) -> bool {
        match answer {
            ExecutorAnswer::Refused(refusal) => {
                heard.refused = Some(refusal.reason);
                return true;
            }
            ExecutorAnswer::Ended { local, .. } => {
                heard.ended = Some((local.end, local.detail.0.clone()));
                return true;
            }
            ExecutorAnswer::Failed { message } => {
                heard.complaint = Some(message);
                return true;
            }
            ExecutorAnswer::Reached {
                stage: Stage::Running,
                ..
            } if plan.stranger => {
                batch(
                    "ip",
                    &["route", "add", STRANGE, "via", "10.99.0.2", "dev", "other"],
                    "",
                );
                heard.strange = true;
            }
            ExecutorAnswer::ConfirmWanted { confirmation } => {
                let statement = self
                    .device
                    .confirmation(&confirmation, &self.device.orchestrator);
                let confirm = ExecutorRequest::Confirm { statement };
                self.decide(plan, envelope, &confirmation.change, confirm, heard)
                    .await;
            }
            ExecutorAnswer::ConfirmOnSiteWanted { change, .. } => {
                let confirm = ExecutorRequest::ConfirmOnSite {
                    change: change.clone(),
                };
                self.decide(plan, envelope, &change, confirm, heard).await;
            }
            _ => {}
        }
        false
    }

    async fn decide(
        &self,
        plan: &Plan,
        envelope: &Envelope,
        change: &ChangeId,
        confirm: ExecutorRequest,
        heard: &mut Heard,
    ) {
        let ours = matches!(plan.ending, Ending::Confirmed | Ending::Asked);
        if plan.busy && ours {
            heard.complaint = self.others(envelope, &plan.misfortune).await;
        }
        match plan.ending {
            Ending::Confirmed => {
                heard.after = Some(self.world.picture());
                let answer = match confirm {
                    ExecutorRequest::Confirm { .. } => self.device.try_ask(&confirm).await,
                    _ => self.device.try_ask_as(0, &confirm),
                };
                let calm = plan.misfortune == Misfortune::None && !plan.rough;
                if calm && answer != Some(ExecutorAnswer::Done) {
                    heard.complaint = Some(format!("the confirmation: {answer:?}"));
                }
            }
            Ending::Asked => {
                let change = change.clone();
                self.device
                    .try_ask_as(0, &ExecutorRequest::RollBack { change });
            }
            Ending::LinkLost => {
                self.world.far("ip", &["link", "set", "far0", "down"], "");
            }
            Ending::Unconfirmed | Ending::Fails | Ending::Denied => {}
        }
    }

    /// One change at a time, and each once.
    async fn others(&self, envelope: &Envelope, misfortune: &Misfortune) -> Option<String> {
        let second = self.device.sign(&self.device.package("exit 7\n"));
        for (package, allowed) in [
            (second, &[Reason::Busy][..]),
            (envelope.clone(), &[Reason::Busy, Reason::Replayed]),
        ] {
            let request = ExecutorRequest::Execute {
                delivery: Some(self.device.deliver(&package)),
                package,
                bindings: Bindings::new(),
            };
            match self.device.try_ask(&request).await {
                Some(ExecutorAnswer::Refused(refusal)) if allowed.contains(&refusal.reason) => {}
                None if *misfortune != Misfortune::None => {}
                Some(ExecutorAnswer::Refused(refusal))
                    if refusal.reason == Reason::StorageFailed
                        && matches!(misfortune, Misfortune::Full { .. }) => {}
                other => return Some(format!("a second package: {other:?}")),
            }
        }
        None
    }
}

/// Lets it come at its time.
fn threaten(
    misfortune: &Misfortune,
    executor: u32,
    length: Duration,
    state: &Path,
) -> Option<JoinHandle<()>> {
    let id = Pid::from_raw(i32::try_from(executor).unwrap());
    match misfortune.clone() {
        Misfortune::None | Misfortune::Refused { .. } => None,
        Misfortune::Killed { at, .. } | Misfortune::Rebooted { at, .. } => {
            Some(std::thread::spawn(move || {
                std::thread::sleep(length.mul_f64(at));
                kill(id, Signal::SIGKILL).unwrap();
            }))
        }
        Misfortune::Stopped { at } => Some(std::thread::spawn(move || {
            std::thread::sleep(length.mul_f64(at));
            kill(id, Signal::SIGSTOP).unwrap();
            std::thread::sleep(Duration::from_millis(1200));
            kill(id, Signal::SIGCONT).unwrap();
        })),
        Misfortune::Full { at, left } => {
            let state = state.to_owned();
            let filling = move || {
                std::thread::sleep(length.mul_f64(at));
                fill(&state, left);
            };
            if at > 0.0 {
                return Some(std::thread::spawn(filling));
            }
            filling();
            None
        }
    }
}

/// Leaves so much of a file system, bytes.
fn fill(state: &Path, left: u64) {
    let mut ballast = fs::File::create(state.join("ballast")).unwrap();
    loop {
        let space = nix::sys::statvfs::statvfs(state).unwrap();
        let free = space.blocks_available() * space.fragment_size();
        let more = free.saturating_sub(left).min(256 << 10);
        if more < 4096 {
            return;
        }
        let zeros = vec![0; usize::try_from(more).unwrap()];
        if ballast.write_all(&zeros).is_err() {
            return;
        }
    }
}

/// How long a journal is, and what its last record says.
fn last_word(journal: &Path) -> (usize, String) {
    let bytes = fs::read(journal).unwrap_or_default();
    let (mut at, mut last) = (0, &[][..]);
    while let Some(length) = bytes.get(at + 4..at + 8) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        let Some(payload) = bytes.get(at + 52..at + 52 + length) else {
            break;
        };
        last = payload;
        at += 52 + length + 4;
    }
    let record: serde_json::Value = serde_json::from_slice(last).unwrap_or_default();
    let word = record["event"]["event"]
        .as_str()
        .or(record["entry"].as_str());
    (at, word.unwrap_or("nothing").to_owned())
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Processes below this one, without those that belong here; zombies are let go.
fn descendants(own: &[u32]) -> Vec<String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let line = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = line.rsplit_once(") ") else {
            continue;
        };
        let mut rest = rest.split(' ');
        let state = rest.next().unwrap_or_default().to_owned();
        let parent: u32 = rest.next().and_then(|p| p.parse().ok()).unwrap_or_default();
        all.insert(id, (parent, state, name.to_owned()));
    }
    let me = std::process::id();
    let below = |mut id: u32| {
        while let Some((parent, ..)) = all.get(&id) {
            if *parent == me {
                return true;
            }
            id = *parent;
        }
        false
    };
    let mut left = Vec::new();
    for (id, (parent, state, name)) in &all {
        if own.contains(id) || !below(*id) {
            continue;
        }
        if state == "Z" && *parent == me {
            waitpid(Pid::from_raw(i32::try_from(*id).unwrap()), None).ok();
        }
        left.push(format!("{state} {name}"));
    }
    left
}

/// The control groups of an executor's scripts.
fn groups(executor: u32) -> Vec<PathBuf> {
    let member = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in member.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controller), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mounted = if controller.is_empty() {
            "unified"
        } else {
            controller
        };
        let base = Path::new("/sys/fs/cgroup")
            .join(mounted)
            .join(path.trim_start_matches('/'));
        let ours = format!("-{executor}-");
        let of = |name: &String| name.starts_with("aizen-run-") && name.contains(&ours);
        found.extend(
            names(&base)
                .into_iter()
                .filter(of)
                .map(|name| base.join(name)),
        );
    }
    found
}
