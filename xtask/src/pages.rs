//! `cargo xtask pages`: manual pages and shell completions of both programs, from the definitions of their command lines.
//! The programs carry neither: flash is scarce.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Where they go.
#[derive(Args)]
pub(crate) struct PagesArgs {
    /// Folder to write `man1` and `completions` into
    #[arg(long, value_name = "FOLDER", default_value = "target/pages")]
    out: PathBuf,
}

/// Writes them.
pub(crate) fn run(args: &PagesArgs) -> Result<()> {
    for program in [
        aizen_agent::cli::definition(),
        aizen_orchestrator::cli::definition(),
    ] {
        completions(&program, &args.out.join("completions"))?;
        let folder = args.out.join("man1");
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let mut built = program;
        // Common options and the names of subcommands (`aizen-sandbox-run`) come with it.
        built.build();
        manual(&built, &folder)?;
    }
    Ok(())
}

/// A page for the program and one for each of its subcommands.
fn manual(command: &Command, folder: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let file = folder.join(format!("{name}.1"));
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name.to_uppercase())
        .manual("Aizen")
        .source(format!("Aizen {}", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    File::create(&file)
        .and_then(|mut file| file.write_all(&page))
        .with_context(|| format!("can't write {}", file.display()))?;
    let shown = |sub: &&Command| !sub.is_hide_set() && sub.get_name() != "help";
    command
        .get_subcommands()
        .filter(shown)
        .try_for_each(|sub| manual(sub, folder))
}

/// One file a shell, under the name that the shell looks for.
fn completions(program: &Command, folder: &Path) -> Result<()> {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let folder = folder.join(shell.to_string());
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let mut command = program.clone();
        let name = command.get_name().to_owned();
        clap_complete::generate_to(shell, &mut command, name, &folder)
            .with_context(|| format!("can't write completions to {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn every_command_has_a_page_and_bash_takes_the_completions() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_owned();
        run(&PagesArgs { out: out.clone() }).unwrap();
        for program in [
            aizen_agent::cli::definition(),
            aizen_orchestrator::cli::definition(),
        ] {
            let name = program.get_name();
            for sub in program.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                let page = out.join(format!("man1/{name}-{}.1", sub.get_name()));
                let text = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{page:?}: {e}"));
                assert!(text.contains(".SH SYNOPSIS"), "{text}");
            }
        }
        let diagnose = fs::read_to_string(out.join("man1/aizen-diagnose.1")).unwrap();
        assert!(diagnose.contains("replay"), "{diagnose}");
        // Common options are on every page.
        assert!(diagnose.contains("json"), "{diagnose}");
        for file in [
            "bash/aizen.bash",
            "bash/aizen-orchestrator.bash",
            "zsh/_aizen",
            "fish/aizen.fish",
        ] {
            let file = out.join("completions").join(file);
            let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
            assert!(
                text.contains("rehearse") || text.contains("approve"),
                "{file:?}"
            );
        }
        let bash = process::Command::new("bash")
            .arg("-n")
            .arg(out.join("completions/bash/aizen.bash"))
            .status()
            .unwrap();
        assert!(bash.success());
    }
}
