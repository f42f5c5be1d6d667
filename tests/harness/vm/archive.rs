//! Packages out of Debian's archive without installing them: apt with lists and a cache of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Signs all of Debian's archives (package debian-archive-keyring).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12 with its security updates.
    Bookworm,
    /// Debian 13's backports: the newest kernels that Debian supports.
    TrixieBackports,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::TrixieBackports => "trixie-backports",
        }
    }

    fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Bookworm => &["debian bookworm", "debian-security bookworm-security"],
            Self::TrixieBackports => &["debian trixie", "debian trixie-backports"],
        }
    }
}

/// One suite of the archive.
#[derive(Debug)]
pub struct Archive {
    suite: Suite,
    folder: PathBuf,
}

impl Archive {
    /// Fetches the suite's lists, unless they are in the cache.
    ///
    /// # Errors
    /// If the archive is out of reach.
    pub fn open(cache: &Path, suite: Suite) -> Result<Self> {
        let folder = cache.join(format!("apt-{}", suite.name()));
        for inner in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(inner))?;
        }
        let sources: String = suite
            .sources()
            .iter()
            .map(|source| {
                let (archive, suite) = source.split_once(' ').unwrap_or((source, ""));
                format!("deb [signed-by={KEYRING}] http://deb.debian.org/{archive} {suite} main\n")
            })
            .collect();
        fs::write(folder.join("sources.list"), sources)?;
        let archive = Self { suite, folder };
        let fresh = archive.folder.join("fresh");
        if !fresh.exists() {
            shell::run(
                archive
                    .apt("apt-get")
                    .args(["update", "-qq", "--error-on=any"]),
            )
            .context("Debian's archive is out of reach")?;
            fs::write(fresh, "")?;
        }
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let folder = self.folder.display();
        for option in [
            format!("Dir::Etc::sourcelist={folder}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::Cache={folder}/cache"),
            "Dir::State::status=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Backports are taken only where they are asked for.
    fn preferred(&self) -> Option<&'static str> {
        match self.suite {
            Suite::Bookworm => None,
            Suite::TrixieBackports => Some("--target-release=trixie-backports"),
        }
    }

    /// The packages that hold the kernel which `package` (a meta package) stands for.
    ///
    /// # Errors
    /// If the suite does not know it.
    pub fn kernel_packages(&self, package: &str) -> Result<Vec<String>> {
        let told = shell::run(
            self.apt("apt-get")
                .args(["install", "-s", "--no-install-recommends"])
                .args(self.preferred())
                .arg(package),
        )?;
        let holds_kernel = |name: &&str| {
            ["linux-image-", "linux-binary-", "linux-modules-"]
                .iter()
                .filter_map(|start| name.strip_prefix(start))
                .any(|rest| {
                    rest.starts_with(|first: char| first.is_ascii_digit())
                        && rest.matches('.').count() >= 2
                })
        };
        let found: Vec<String> = told
            .lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(holds_kernel)
            .map(str::to_owned)
            .collect();
        if found.is_empty() {
            bail!("{} has no kernel behind {package}", self.suite.name());
        }
        Ok(found)
    }

    /// Downloads packages and lays their files into a folder, whole or not at all.
    ///
    /// # Errors
    /// If one can't be fetched.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let parts = into.with_extension("partial");
        if parts.exists() {
            fs::remove_dir_all(&parts)?;
        }
        let debs = parts.join("debs");
        fs::create_dir_all(&debs)?;
        shell::run(
            self.apt("apt-get")
                .args(["download", "-qq"])
                .args(self.preferred())
                .args(packages)
                .current_dir(&debs),
        )?;
        for deb in fs::read_dir(&debs)? {
            shell::run(Command::new("dpkg").arg("-x").arg(deb?.path()).arg(&parts))?;
        }
        fs::remove_dir_all(&debs)?;
        Ok(fs::rename(&parts, into)?)
    }
}
