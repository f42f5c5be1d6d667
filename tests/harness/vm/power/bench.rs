//! The guest of the power cuts: enrolled, with `/etc` and `/var/lib/aizen` on the disk that forgets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::change::{Contents, Ending, FILES, Kind, Plan, plan};
use super::judge::Moment;
use super::{FileSystem, From, Soak};
use crate::lab::draw::Draw;
use crate::package::{alice, for_device, manifest, sign};
use crate::shell;
use crate::vm::disk::{Disk, Spared};
use crate::vm::furnish;
use crate::vm::kernel::Kernel;
use crate::vm::machine::{Machine, Shape};
use crate::world::World;

/// Size of the guest's disk, MiB.
const DISK: u64 = 128;

/// Early in boot, in the order of `aizen-recover.service`: file systems, recovery, then the network out of its
/// configuration, then the executor. Each state is put down where the other side reads it.
const START: &str = r#"
modprobe veth; modprobe KIND 2>/dev/null
CHECK >/run/vm/fsck.out 2>&1; echo $? >/run/vm/fsck.rc
mkdir /run/disk; mount -t KIND /dev/vda /run/disk || { dmesg | tail >/run/vm/broken; }
mount --bind /run/disk/etc /etc; mkdir -p /var/lib/aizen; mount --bind /run/disk/aizen /var/lib/aizen
mkdir -m 1775 /run/aizen
state() { for f in FILES; do
    if [ -e $f ]; then set -- $(sha256sum $f); stat -c "file $f $1 %a %u:%g %.9Y" $f; else echo "absent $f"; fi
  done; }
cp /var/lib/aizen/executor/journal /run/vm/journal
state >/run/vm/state.found
timeout 120 AIZEN recover >/run/vm/recover.out 2>&1; echo $? >/run/vm/recover.rc
state >/run/vm/state.recovered
timeout 120 AIZEN recover >/run/vm/again.out 2>&1; echo $? >/run/vm/again.rc
state >/run/vm/state.again
ip link add wan type veth peer name isp; ip addr add 192.0.2.2/24 dev wan; ip link set wan up; ip link set isp up
RUST_LOG=info AIZEN executor --listen >/run/vm/executor.out 2>&1 &
n=0; while ! AIZEN changes list --json >/run/vm/changes.new 2>/dev/null && [ $n -lt 200 ]; do n=$((n+1)); sleep 0.2; done
mv /run/vm/changes.new /run/vm/changes
"#;

/// A signed change and what it must lead to.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) package: String,
    pub(super) name: String,
    pub(super) plan: Plan,
    ending: Ending,
}

/// What survives the cuts, and the guest that runs now.
pub(super) struct Bench {
    world: World,
    kernel: Kernel,
    disk: Disk,
    start: String,
    aizen: PathBuf,
    folder: PathBuf,
    machine: Option<Machine>,
    boots: u32,
}

impl Bench {
    pub(super) fn lay_out(soak: &Soak<'_>, folder: &Path) -> Result<Self> {
        let world = World::enrolled()?;
        let aizen = folder.join("aizen");
        furnish::lean(&aizen)?;
        let image = folder.join("disk.img");
        furnish::device(&world, &folder.join("root"))?;
        make_disk(soak.file_system, &image, &folder.join("root"))?;
        let disk = Disk::serve(&image, &folder.join("disk"), soak.unit)?;
        let kind = soak.file_system.name();
        let start = START
            .replace("CHECK", soak.file_system.check())
            .replace("KIND", kind)
            .replace("FILES", &FILES.join(" "))
            .replace("AIZEN", aizen.to_str().context("a path that is no UTF-8")?);
        Ok(Self {
            world,
            kernel: soak.kernel.clone(),
            disk,
            start,
            aizen,
            folder: folder.to_owned(),
            machine: None,
            boots: 0,
        })
    }

    /// Starts the guest; with a number, its power fails at so many writes and flushes from here.
    pub(super) fn boot(&mut self, cut_after: Option<u64>) -> Result<()> {
        self.boots += 1;
        let folder = self.folder.join(format!("boot{}", self.boots));
        fs::create_dir(&folder)?;
        self.disk.cut_after(cut_after);
        let shape = Shape {
            kernel: &self.kernel,
            memory: 512,
            disk: Some(&self.disk),
            start: &self.start,
        };
        self.machine = Some(Machine::start(&shape, &folder)?);
        Ok(())
    }

    fn machine(&mut self) -> Result<&mut Machine> {
        self.machine.as_mut().context("no guest runs")
    }

    /// Waits until it is up; false if its power failed before.
    pub(super) fn wait_booted(&mut self) -> Result<bool> {
        let Self { machine, disk, .. } = self;
        let machine = machine.as_mut().context("no guest runs")?;
        let up = machine.wait_up(|| disk.is_cut())?;
        if up {
            // A cut that was meant for the boot does not hit later.
            disk.cut_after(None);
            if disk.is_cut() {
                return Ok(false);
            }
            if machine.share().join("broken").exists() {
                bail!(
                    "the disk can't be mounted: {}\n{}",
                    self.read("broken"),
                    self.read("fsck.out")
                );
            }
        }
        Ok(up)
    }

    /// What the guest put down under this name at its start.
    pub(super) fn read(&self, name: &str) -> String {
        let share = self.machine.as_ref().map(Machine::share);
        share
            .and_then(|share| fs::read(share.join(name)).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// True if the check before the last mount found something to repair (fsck(8): bit 0 of its code); replaying the file
    /// system's own journal is none.
    pub(super) fn was_repaired(&self) -> Result<bool> {
        let code: u8 = self
            .read("fsck.rc")
            .trim()
            .parse()
            .context("no word of the file system's check")?;
        match code {
            0 => Ok(false),
            1..=3 => Ok(true),
            other => bail!(
                "the file system's check ended with {other}: {}",
                self.read("fsck.out")
            ),
        }
    }

    /// What the files are now.
    pub(super) fn state(&self) -> Result<State> {
        State::parse(&self.read("state.again"))
    }

    /// What the journal last knew of this change, as it was found at the last boot.
    pub(super) fn moment(&self, change: &Prepared) -> Option<Moment> {
        let share = self.machine.as_ref()?.share();
        let journal = fs::read(share.join("journal")).ok()?;
        Some(Moment::last(
            &String::from_utf8_lossy(&journal),
            &change.package,
        ))
    }

    pub(super) fn prepare(
        &mut self,
        number: u32,
        kind: Kind,
        ending: Ending,
        before: &State,
    ) -> Result<Prepared> {
        let plan = plan(number, kind, ending, &before.contents());
        let package = for_device(
            &self.world.device,
            &self.world.id,
            &plan.script,
            manifest(&plan.manifest)?,
        )?;
        let envelope = sign(&package, &[&alice(&self.world)?])?;
        let name = format!("package{number}.json");
        fs::write(self.folder.join(&name), serde_json::to_vec(&envelope)?)?;
        Ok(Prepared {
            package: package.id.to_string(),
            name,
            plan,
            ending,
        })
    }

    /// Has the guest apply a change, until it ends or the disk saw so many writes and flushes since `from`: the code that the
    /// person was told, or none.
    pub(super) fn change_until_cut(
        &mut self,
        change: &Prepared,
        from: From,
        events: u64,
        within: Duration,
    ) -> Result<Option<i32>> {
        let (aizen, package) = (self.aizen(), self.hand_in(change)?);
        let confirm = match change.ending {
            Ending::Confirmed => format!(
                "while kill -0 $apply 2>/dev/null; do\n\
                 id=$(sed -n 's/.*aizen changes confirm //p' /run/vm/apply.out)\n\
                 [ -n \"$id\" ] && {aizen} changes confirm \"$id\" && break\nsleep 0.1\ndone\n"
            ),
            Ending::Unconfirmed | Ending::Fails => String::new(),
        };
        let script = format!(
            "{aizen} apply --yes {package} >/run/vm/apply.out 2>&1 & apply=$!\n{confirm}wait $apply; code=$?; cat /run/vm/apply.out; exit $code\n"
        );
        let Self { machine, disk, .. } = self;
        let machine = machine.as_mut().context("no guest runs")?;
        disk.cut_after((from == From::Start).then_some(events));
        let job = machine.begin(&script)?;
        if from == From::Admission {
            let said = machine.share().join("apply.out");
            let admitted =
                || fs::read_to_string(&said).is_ok_and(|said| said.contains("\nChange chg-"));
            machine.wait(&job, within, admitted)?;
            disk.cut_after(Some(events));
        }
        let told = machine.wait(&job, within, || disk.is_cut())?;
        if let Some(code) = told
            && !matches!(
                (change.ending, code),
                (Ending::Confirmed, 0) | (Ending::Unconfirmed | Ending::Fails, 5)
            )
        {
            bail!(
                "'aizen apply' ended with {code}: {}\n{}",
                job.said(),
                self.read("executor.out")
            );
        }
        Ok(told)
    }

    /// Writes and flushes of the disk since the change began.
    pub(super) fn events(&self) -> u64 {
        self.disk.events()
    }

    /// Pulls the plug, and lets the disk's cache lose what it loses.
    pub(super) fn power_off_and_on(&mut self, draw: &mut Draw) -> Result<Spared> {
        self.disk.cut_now();
        if let Some(machine) = self.machine.take() {
            machine.kill()?;
        }
        self.disk.restore_power(draw)
    }

    /// Runs a script in the guest that may fail: its exit code and what it said.
    pub(super) fn try_run(&mut self, script: &str) -> Result<(Option<i32>, String)> {
        let machine = self.machine()?;
        let job = machine.begin(script)?;
        let code = machine.wait(&job, Duration::from_secs(120), || false)?;
        Ok((code, job.said()))
    }

    /// Hands the package to the guest that runs now; its name there.
    pub(super) fn hand_in(&self, change: &Prepared) -> Result<String> {
        let machine = self.machine.as_ref().context("no guest runs")?;
        fs::copy(
            self.folder.join(&change.name),
            machine.share().join(&change.name),
        )?;
        Ok(format!("/run/vm/{}", change.name))
    }

    /// The program in the guest.
    pub(super) fn aizen(&self) -> String {
        self.aizen.display().to_string()
    }
}

/// What the files are: path, SHA-256 of the content, mode with owner and time; an absent one has neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State(Vec<(String, Option<String>, String)>);

impl State {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let file = |line: &str| {
            let mut words = line.splitn(4, ' ').map(str::to_owned);
            let kind = words.next()?;
            let path = words.next()?;
            match kind.as_str() {
                "file" => Some((path, Some(words.next()?), words.next()?)),
                "absent" => Some((path, None, String::new())),
                _ => None,
            }
        };
        let files: Option<Vec<_>> = text.lines().map(file).collect();
        match files {
            Some(files) if files.len() == FILES.len() => Ok(Self(files)),
            _ => bail!("no state of {} files: {text}", FILES.len()),
        }
    }

    /// The contents alone.
    pub(super) fn contents(&self) -> Contents {
        let contents = self.0.iter();
        contents
            .map(|(path, digest, _)| (path.clone(), digest.clone()))
            .collect()
    }

    /// The files in which two states differ.
    pub(super) fn differs(&self, other: &Self) -> Vec<String> {
        let pairs = self.0.iter().zip(&other.0).filter(|(a, b)| a != b);
        pairs
            .map(|(was, is)| format!("was {was:?}, is {is:?}"))
            .collect()
    }
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::F2fs => "f2fs",
        }
    }

    /// The check that a device makes at boot before it mounts: without questions, only if there is reason to (as
    /// systemd-fsck(8) and OpenWrt's mount_root do).
    fn check(self) -> &'static str {
        match self {
            Self::Ext4 => "/sbin/e2fsck -p /dev/vda",
            Self::F2fs => "/sbin/fsck.f2fs -a /dev/vda",
        }
    }
}

fn make_disk(kind: FileSystem, image: &Path, root: &Path) -> Result<()> {
    fs::File::create(image)?.set_len(DISK << 20)?;
    match kind {
        FileSystem::Ext4 => {
            shell::run(
                Command::new("mke2fs")
                    .args(["-q", "-F", "-t", "ext4", "-d"])
                    .arg(root)
                    .arg(image),
            )?;
        }
        FileSystem::F2fs => {
            shell::run(Command::new("mkfs.f2fs").args(["-q", "-f"]).arg(image))?;
            shell::run(
                Command::new("sload.f2fs")
                    .args(["-P", "-f"])
                    .arg(root)
                    .arg(image),
            )?;
        }
    }
    Ok(())
}
