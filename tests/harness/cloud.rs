//! The orchestrator in the lab's cloud, and the keys of the people around it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::binaries;
use crate::lab::{CLOUD, CLOUD_NAME, Lab};
use crate::netns::Netns;
use crate::program::Program;
use crate::{shell, wait};

/// Port of the orchestrator.
pub const PORT: u16 = 8443;

/// A running orchestrator. The root's and the approver's keys lie beside its data, never in it.
#[derive(Debug)]
pub struct Cloud {
    serve: Option<Program>,
    netns: String,
    folder: PathBuf,
    name: String,
    address: String,
}

impl Cloud {
    /// Makes keys and trust document as an operator would, and starts the orchestrator on its embedded defaults.
    ///
    /// # Errors
    /// If a command fails or the orchestrator does not serve within ten seconds.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_in(&lab.cloud, lab.folder(), CLOUD_NAME, CLOUD)
    }

    /// The same in any namespace, under another name and address.
    ///
    /// # Errors
    /// As [`Cloud::start`].
    pub fn start_in(netns: &Netns, folder: &Path, name: &str, address: &str) -> Result<Self> {
        let folder = folder.join("cloud");
        std::fs::create_dir_all(folder.join("people"))?;
        let mut cloud = Self {
            serve: None,
            netns: netns.name().to_owned(),
            folder,
            name: name.to_owned(),
            address: address.to_owned(),
        };
        cloud.prepare()?;
        cloud.serve(netns)?;
        Ok(cloud)
    }

    /// The name that devices know it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self) -> Result<()> {
        let people = self.folder.join("people");
        let (root, approver) = (people.join("root.key"), self.approver_key());
        self.run(&["key", "new", "--out", text(&root)?])?;
        self.run(&["key", "new", "--out", text(&approver)?])?;
        let data = self.data();
        self.run(&[
            "init",
            "--data",
            text(&data)?,
            "--name",
            &self.name,
            "--name",
            &self.address,
        ])?;
        let trust = self.trust();
        self.run(&[
            "trust",
            "new",
            "--root",
            &format!("{}.pub", text(&root)?),
            "--threshold",
            "1",
            "--approver",
            &format!("alice={}.pub", text(&approver)?),
            "--orchestrator",
            text(&data.join("orchestrator.key.pub"))?,
            "-o",
            text(&trust)?,
        ])?;
        self.run(&["trust", "sign", "--key", text(&root)?, text(&trust)?])?;
        Ok(())
    }

    /// Starts the server, on the data of its last run if there was one.
    ///
    /// # Errors
    /// If it does not serve within ten seconds.
    pub fn serve(&mut self, netns: &Netns) -> Result<()> {
        self.serve_at(netns, PORT)
    }

    /// The same at another port.
    ///
    /// # Errors
    /// If it does not serve within ten seconds.
    pub fn serve_at(&mut self, netns: &Netns, port: u16) -> Result<()> {
        let mut command = netns.command(text(&binaries::orchestrator()?)?);
        command
            .args([
                "serve",
                "--data",
                text(&self.data())?,
                "--trust",
                text(&self.trust())?,
            ])
            .args(["--listen", &format!("0.0.0.0:{port}")])
            .env("RUST_LOG", "info");
        let mut serve = Program::start(
            "aizen-orchestrator",
            &mut command,
            &self.folder.join("orchestrator.log"),
        )?;
        // The command line finds the server by this file.
        let url = self.data().join("server.url");
        let ready = || {
            shell::run(netns.command("cat").arg("/proc/net/tcp"))
                .is_ok_and(|t| t.contains(&format!(":{port:04X} ")))
                && url.exists()
        };
        serve.wait_ready(Duration::from_secs(10), ready)?;
        self.serve = Some(serve);
        Ok(())
    }

    /// Ends the server; its data stay.
    ///
    /// # Errors
    /// If it does not end within ten seconds.
    pub fn stop(&mut self) -> Result<()> {
        match self.serve.take() {
            Some(mut serve) => serve.stop().map(drop),
            None => Ok(()),
        }
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The signed trust document.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.folder.join("trust.json")
    }

    /// Alice's private key.
    #[must_use]
    pub fn approver_key(&self) -> PathBuf {
        self.folder.join("people").join("alice.key")
    }

    /// What the server said.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("orchestrator.log")).unwrap_or_default()
    }

    /// A command of the orchestrator's command line, in the cloud's namespace.
    ///
    /// # Errors
    /// If the program is not built.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.netns])
            .arg(binaries::orchestrator()?)
            .args(words);
        Ok(command)
    }

    /// Runs it.
    ///
    /// # Errors
    /// As [`shell::run`].
    pub fn run(&self, words: &[&str]) -> Result<String> {
        shell::run(&mut self.command(words)?)
    }

    /// Runs it on the running server and reads its JSON.
    ///
    /// # Errors
    /// As [`shell::run`]; if the output is no JSON.
    pub fn ask(&self, words: &[&str]) -> Result<Value> {
        let mut command = self.command(words)?;
        command.args(["--json", "--data", text(&self.data())?]);
        let output = shell::run(&mut command)?;
        serde_json::from_str(&output).with_context(|| format!("{words:?} gave no JSON: {output}"))
    }

    /// A one-time token for one device.
    ///
    /// # Errors
    /// As [`Cloud::ask`].
    pub fn token(&self) -> Result<String> {
        let answer = self.ask(&["token", "create"])?;
        Ok(answer["token"]
            .as_str()
            .context("no token in the answer")?
            .to_owned())
    }

    /// Approves with Alice's key.
    ///
    /// # Errors
    /// As [`Cloud::ask`].
    pub fn approve(&self, approval: &str) -> Result<Value> {
        self.ask(&[
            "approve",
            approval,
            "--yes",
            "--key",
            text(&self.approver_key())?,
        ])
    }

    /// The numbers of all records in its store, ascending; a record that is there twice is told twice.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn stored_numbers(&self) -> Result<Vec<u64>> {
        let script = "import sqlite3,sys\nfor (n,) in sqlite3.connect(sys.argv[1]).execute('select seq from records order by seq'): print(n)";
        let db = self.data().join("orchestrator.db");
        let output = shell::run(Command::new("python3").args(["-c", script]).arg(db))?;
        Ok(output.lines().map(str::parse).collect::<Result<_, _>>()?)
    }

    /// Waits for an approval that is pending.
    ///
    /// # Errors
    /// If there is none within the time.
    pub fn pending_approval(&self, within: Duration) -> Result<Value> {
        let pending = || {
            let list = self.ask(&["approvals"]).ok()?;
            let items = list["approvals"].as_array()?;
            items.iter().find(|a| a["state"] == "pending").cloned()
        };
        wait::until("an approval to be asked for", within, pending)
    }

    /// Waits until a case with this cause is in this state (`*` for any).
    ///
    /// # Errors
    /// If there is none within the time.
    pub fn case(&self, cause: &str, state: &str, within: Duration) -> Result<Value> {
        wait::until(&format!("a case {cause} that is {state}"), within, || {
            let list = self.ask(&["cases"]).ok()?;
            let items = list["cases"].as_array()?;
            items
                .iter()
                .find(|c| c["cause"] == cause && (state == "*" || c["state"] == state))
                .cloned()
        })
    }
}

/// A path as text.
///
/// # Errors
/// If it is no UTF-8.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no UTF-8", path.display()))
}
