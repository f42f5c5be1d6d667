//! One round on a device: the life of a change under what comes between, and what must hold afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
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

use super::plan::{Ending, Misfortune, Plan};
use super::threat::threaten;
use super::traces::{descendants, groups, last_word, mounts, names};
use super::world::{Picture, STRANGE, World, batch};
use crate::device::{Device, NONE, wait_until};
use crate::{crashes, faults};

mod invariants;

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
