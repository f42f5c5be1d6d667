//! `cargo xtask soak`: long trials, most of them in virtual machines with Debian's kernels.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use harness::lab::{needs, scenario};
use harness::vm::power::{self, FileSystem, Soak};
use harness::vm::{self, field, kernel, matrix, units};
use harness::{packages, wait};

use crate::build;

mod executor;

#[derive(Subcommand)]
pub(crate) enum SoakCommand {
    /// Kill the executor, or refuse what it asks, at each call of the life of a change and of a recovery
    Faults,
    /// Stop every repair script of the library after each of its operations, and look what the device is afterwards
    Prefixes,
    /// Rehearse every repair script of the library, apply it, and compare what was shown with what happened
    Foreseen,
    /// Random scripts, ends and misfortunes, round after round; the invariants of a change are looked at after each
    Rounds(RoundsArgs),
    /// The same with repair scripts for WireGuard, in a virtual machine whose kernel has it
    Tunnels(TunnelsArgs),
    /// Cut the power of a device in the middle of changes, and look what it is afterwards
    Power(PowerArgs),
    /// Hold what the sandbox says of each kernel against what a script inside finds
    Kernels(KernelsArgs),
    /// Boot systemd with the project's units, and apply a change through them
    Units(UnitsArgs),
    /// Run scenarios of the fault lab under Debian's kernel; those that other kernels lack something for, without names
    Lab(LabArgs),
}

#[derive(Args)]
pub(crate) struct RoundsArgs {
    /// Rounds
    #[arg(long, default_value_t = 200)]
    rounds: u64,
    /// Repeat a run: the seed that it printed
    #[arg(long)]
    seed: Option<u64>,
    /// The number of the first round
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Devices beside each other
    #[arg(long, default_value_t = 4)]
    lanes: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum FileSystemName {
    Ext4,
    F2fs,
}

#[derive(Args)]
pub(crate) struct PowerArgs {
    /// Power cuts
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Repeat a run: the seed that it printed
    #[arg(long)]
    seed: Option<u64>,
    /// The kernel: bookworm, bookworm-6.12 or trixie-backports
    #[arg(long, default_value = "bookworm")]
    kernel: String,
    /// The file system of the device's disk
    #[arg(long, value_enum, default_value = "ext4")]
    fs: FileSystemName,
    /// What a cut leaves whole or not at all, bytes: 512 is all that a disk promises
    #[arg(long, default_value_t = vm::disk::UNIT, value_parser = clap::value_parser!(u64).range(512..))]
    unit: u64,
}

#[derive(Args)]
pub(crate) struct KernelsArgs {
    /// Kernels; all without one
    names: Vec<String>,
}

#[derive(Args)]
pub(crate) struct TunnelsArgs {
    /// The kernel: bookworm, bookworm-6.12 or trixie-backports
    #[arg(long, default_value = "bookworm")]
    kernel: String,
}

#[derive(Args)]
pub(crate) struct UnitsArgs {
    /// The kernel: bookworm, bookworm-6.12 or trixie-backports
    #[arg(long, default_value = "bookworm")]
    kernel: String,
}

#[derive(Args)]
pub(crate) struct LabArgs {
    /// Scenarios (FAMILY/NAME, or a whole FAMILY)
    names: Vec<String>,
    /// Repeat a run: the seed that it printed
    #[arg(long)]
    seed: Option<u64>,
    /// The kernel: bookworm, bookworm-6.12 or trixie-backports
    #[arg(long, default_value = "bookworm")]
    kernel: String,
    /// Keep the sanitized evidence of each verdict there, for 'aizen diagnose --replay'
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
}

pub(crate) fn run(command: &SoakCommand) -> Result<()> {
    ctrlc::set_handler(|| wait::INTERRUPTED.store(true, Ordering::SeqCst))
        .context("can't watch for Ctrl-C")?;
    packages::ensure(&mut say)?;
    let in_namespaces = matches!(
        command,
        SoakCommand::Faults
            | SoakCommand::Foreseen
            | SoakCommand::Prefixes
            | SoakCommand::Rounds(_)
    );
    if !in_namespaces {
        packages::ensure_all(vm::NEEDED, &mut say)?;
        build::programs()?;
        build::guest()?;
    }
    let folder = tempfile::tempdir()?;
    match command {
        SoakCommand::Faults => executor::run("_at_each_write_"),
        SoakCommand::Prefixes => executor::run("from_every_prefix_of_every_repair"),
        SoakCommand::Foreseen => executor::run("the_rehearsal_of_every_repair"),
        SoakCommand::Rounds(args) => {
            let seed = args.seed.unwrap_or_else(crate::lab::fresh_seed);
            executor::rounds(seed, args.from, args.rounds, args.lanes)
        }
        SoakCommand::Tunnels(args) => tunnels(args, folder.path()),
        SoakCommand::Power(args) => power(args, folder.path()),
        SoakCommand::Kernels(args) => kernels(args, folder.path()),
        SoakCommand::Units(args) => look_at_units(args, folder.path()),
        SoakCommand::Lab(args) => lab(args, folder.path()),
    }
}

fn power(args: &PowerArgs, folder: &Path) -> Result<()> {
    let file_system = match args.fs {
        FileSystemName::Ext4 => FileSystem::Ext4,
        FileSystemName::F2fs => {
            packages::ensure_all(&[("mkfs.f2fs", "f2fs-tools")], &mut say)?;
            FileSystem::F2fs
        }
    };
    let kernel = kernel::offered(&args.kernel)?.ensure(&vm::cache()?, &mut say)?;
    let seed = args.seed.unwrap_or_else(crate::lab::fresh_seed);
    say(&format!("seed {seed}, kernel {}", kernel.release));
    let soak = Soak {
        kernel: &kernel,
        file_system,
        rounds: args.rounds,
        seed,
        unit: args.unit,
    };
    let rounds = power::run(&soak, folder, &mut |round| say(&round.line()))?;
    say(&format!("\n{}", power::table(&rounds)));
    let bad = rounds
        .iter()
        .filter(|round| !round.violations.is_empty())
        .count();
    if bad > 0 {
        bail!(
            "{bad} of {} rounds broke a promise (seed {seed})",
            rounds.len()
        );
    }
    Ok(())
}

fn kernels(args: &KernelsArgs, folder: &Path) -> Result<()> {
    let offered: Vec<_> = match args.names.as_slice() {
        [] => kernel::OFFERED.iter().collect(),
        names => names
            .iter()
            .map(|name| kernel::offered(name))
            .collect::<Result<_>>()?,
    };
    let aizen = harness::binaries::guest()?;
    let mut rows = Vec::new();
    for offered in offered {
        let kernel = offered.ensure(&vm::cache()?, &mut say)?;
        let folder = folder.join(offered.name);
        std::fs::create_dir(&folder)?;
        let row = matrix::look(&kernel, &aizen, &folder).with_context(|| kernel.release.clone())?;
        say(&format!(
            "{}: level {} reported, {} found",
            row.release, row.reported, row.found
        ));
        rows.push(row);
    }
    say(&format!("\n{}", matrix::table(&rows)));
    if rows.iter().any(|row| !row.differ.is_empty()) {
        bail!("a level is not what it is said to be");
    }
    Ok(())
}

fn look_at_units(args: &UnitsArgs, folder: &Path) -> Result<()> {
    packages::ensure_all(&[("systemctl", "systemd")], &mut say)?;
    let kernel = kernel::offered(&args.kernel)?.ensure(&vm::cache()?, &mut say)?;
    let looked = units::look(&kernel, folder)?;
    say(&looked.said);
    if !looked.violations.is_empty() {
        bail!("{}", looked.violations.join("; "));
    }
    say("the units keep their promises");
    Ok(())
}

fn lab(args: &LabArgs, folder: &Path) -> Result<()> {
    packages::ensure_all(needs::PROGRAMS, &mut say)?;
    let names = match args.names.as_slice() {
        [] => scenario::all()?
            .into_iter()
            .filter(|scenario| !scenario.needs.is_empty())
            .map(|scenario| scenario.name)
            .collect(),
        names => names.to_vec(),
    };
    let kernel = kernel::offered(&args.kernel)?.ensure(&vm::cache()?, &mut say)?;
    let seed = args.seed.unwrap_or_else(crate::lab::fresh_seed);
    say(&format!("kernel {}", kernel.release));
    let passed = field::run(&kernel, &names, seed, folder, &say)?;
    if let Some(to) = &args.record {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(folder.join("share/evidence"))? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    if !passed {
        bail!("not all of {} passed (seed {seed})", names.len());
    }
    Ok(())
}

fn tunnels(args: &TunnelsArgs, folder: &Path) -> Result<()> {
    packages::ensure_all(needs::PROGRAMS, &mut say)?;
    let kernel = kernel::offered(&args.kernel)?.ensure(&vm::cache()?, &mut say)?;
    say(&format!("kernel {}", kernel.release));
    let line = format!(
        "export AIZEN_SOAK=1; exec {} tunnels_\n",
        executor::built()?.display()
    );
    if !field::play(&kernel, &line, folder, &say)? {
        bail!("a promise was broken under {}", kernel.release);
    }
    Ok(())
}

fn say(line: &str) {
    use std::io::Write as _;
    // With standard output closed there is nobody to tell.
    writeln!(std::io::stdout(), "{line}").ok();
}
