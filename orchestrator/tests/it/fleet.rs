//! One orchestrator with its roots, its approver and its data directory, made by the real command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use aizen_orchestrator::app::{self, Running};
use aizen_orchestrator::config::Settings;
use aizen_orchestrator::data::DataDir;
use aizen_protocol::key::PrivateKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

pub(crate) struct Fleet {
    directory: TempDir,
    settings: Settings,
    running: Option<Running>,
}

pub(crate) fn settings() -> Settings {
    Settings {
        listen: SocketAddr::new(own_loopback().into(), 0),
        lease: Duration::from_secs(20),
        housekeeping: Duration::from_millis(200),
        ..Settings::default()
    }
}

/// A loopback address of this process alone (each test has a process of its own): between the end of a server and its
/// next start no other test's client can take its port.
fn own_loopback() -> Ipv4Addr {
    let [_, b, c, d] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, b, c, d)
}

/// Runs the real program.
pub(crate) async fn program(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aizen-orchestrator"))
        .current_dir(directory)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap()
}

pub(crate) async fn succeed(directory: &Path, arguments: &[&str]) -> String {
    let output = program(directory, arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        Self::with(settings()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let own = own_loopback().to_string();
        let init = [
            "init",
            "--data",
            "data",
            "--name",
            "aizen.test",
            "--name",
            &own,
        ];
        succeed(path, &init).await;
        for key in ["root.key", "anna.key", "bob.key", "stranger.key"] {
            succeed(path, &["key", "new", "--out", key]).await;
        }
        let new = [
            "trust",
            "new",
            "--root",
            "root.key.pub",
            "--threshold",
            "1",
            "--approver",
            "anna=anna.key.pub",
            "--approver",
            "bob=bob.key.pub",
            "--orchestrator",
            "data/orchestrator.key.pub",
            "-o",
            "trust.json",
        ];
        succeed(path, &new).await;
        succeed(path, &["trust", "sign", "--key", "root.key", "trust.json"]).await;
        let mut fleet = Self {
            directory,
            settings,
            running: None,
        };
        fleet.run(Some(&fleet.path("trust.json"))).await;
        fleet
    }

    async fn run(&mut self, trust: Option<&Path>) {
        let running = app::start(&self.data(), self.settings.clone(), trust, &[])
            .await
            .unwrap();
        // A restarted server keeps its port, as devices know it.
        self.settings.listen = running.address;
        self.running = Some(running);
    }

    /// Stops the server and starts it on the same port.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.run(None).await;
    }

    pub(crate) async fn stop(&mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }

    /// Another process serves the data.
    pub(crate) fn moved_to(&mut self, address: SocketAddr) {
        self.settings.listen = address;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data(&self) -> DataDir {
        DataDir::at(&self.path("data"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.settings.listen
    }

    pub(crate) fn key(&self, name: &str) -> PrivateKey {
        PrivateKey::from_pem(&std::fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    /// A command of a person against this server.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["--data", "data"];
        all.extend(arguments);
        program(self.directory(), &all).await
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--data", "data", "--json"];
        all.extend(arguments);
        let text = succeed(self.directory(), &all).await;
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn token(&self) -> String {
        let mut token = succeed(self.directory(), &["--data", "data", "token", "create"]).await;
        token.truncate(token.trim_end().len());
        token
    }

    fn http(&self) -> reqwest::Client {
        install_provider();
        let ca = std::fs::read(self.data().ca_certificate()).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .no_proxy()
            .build()
            .unwrap()
    }

    pub(crate) async fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (u16, Value) {
        let url = format!("https://{}/api/v1{path}", self.address());
        let mut request = self.http().request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let token = self.admin_token();
        let (status, body) = self
            .request(reqwest::Method::GET, path, Some(&token), None)
            .await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let token = self.admin_token();
        self.request(reqwest::Method::POST, path, Some(&token), Some(body))
            .await
    }

    pub(crate) fn admin_token(&self) -> String {
        let text = std::fs::read_to_string(self.data().admin_token()).unwrap();
        text.trim().to_owned()
    }

    /// Waits until a list of the API has an entry that satisfies `wanted`.
    pub(crate) async fn until(
        &self,
        path: &str,
        list: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let body = self.get(path).await;
            let found = body[list].as_array().unwrap().iter().find(|v| wanted(v));
            if let Some(found) = found {
                return found.clone();
            }
            assert!(
                Instant::now() < deadline,
                "nothing wanted in {path}: {body:#}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn pending_approval(&self) -> Value {
        self.until("/approvals", "approvals", |a| a["state"] == "pending")
            .await
    }

    pub(crate) async fn case_in_state(&self, state: &str) -> Value {
        self.until("/cases", "cases", |case| case["state"] == state)
            .await
    }

    /// How often something stands in the audit.
    pub(crate) async fn audited(&self, kind: &str) -> usize {
        let entries = self.get("/audit").await;
        let entries = entries["entries"].as_array().unwrap();
        entries.iter().filter(|e| e["event"] == kind).count()
    }
}

/// Signs the package of an approval as a person's program would.
pub(crate) fn signature(approval: &Value, key: &PrivateKey) -> Value {
    let envelope: aizen_protocol::envelope::Envelope =
        serde_json::from_value(approval["envelope"].clone()).unwrap();
    json!({ "signature": STANDARD.encode(key.sign(&envelope.message().unwrap())) })
}

pub(crate) fn install_provider() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
}
