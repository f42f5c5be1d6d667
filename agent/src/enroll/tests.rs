use std::os::unix::fs::PermissionsExt as _;

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::DeviceId;
use jiff::Timestamp;
use rustls::version::TLS13;
use tokio::task::JoinHandle;

use super::*;
use crate::identity::{UplinkIdentity, load_key};
use crate::stream::cloud::{Ca, Clients, Cloud, Validity, soon};

/// An orchestrator that can enrol, as far as a device can see.
struct Fleet {
    ca: Ca,
    root: PrivateKey,
    cloud: Cloud,
}

const SECRET: Digest = Digest([7; 32]);

impl Fleet {
    async fn new() -> Self {
        Self::with(Validity::Always).await
    }

    async fn with(validity: Validity) -> Self {
        let ca = Ca::new();
        let tls = ca.server("localhost", validity, &[&TLS13], Clients::Anybody);
        Self {
            cloud: Cloud::listen(tls).await,
            root: PrivateKey::generate().unwrap(),
            ca,
        }
    }

    fn token(&self) -> EnrollToken {
        EnrollToken {
            secret: SECRET,
            ca: self.ca.digest(),
            roots: vec![Digest::of(&self.root.public().to_bytes())],
        }
    }

    fn settings(&self, root: &Path) -> Settings {
        Settings {
            server: format!("localhost:{}", self.cloud.address().port())
                .parse()
                .unwrap(),
            token: written(&self.token()),
            ca: None,
            layout: Layout::new(root.join("state")),
            user: "aizen".to_owned(),
            force: false,
            agent: "0.1.0".to_owned(),
            patience: Patience::default(),
        }
    }

    fn trust(&self, signer: &PrivateKey) -> Envelope {
        let document = TrustDocument {
            version: 1,
            issued_at: Timestamp::UNIX_EPOCH,
            expires: Timestamp::MAX,
            threshold: 1,
            roots: vec![signer.public()],
            keys: Vec::new(),
            revoked: Vec::new(),
        };
        let json = serde_json::to_vec(&document).unwrap();
        Envelope::sign(PayloadType::Trust, &json, &[signer])
    }

    fn enrolled(&self, certificate: String) -> Enrolled {
        Enrolled {
            device: "dev-7".parse::<DeviceId>().unwrap(),
            certificate,
            ca: self.ca.pem(),
            trust: self.trust(&self.root),
        }
    }

    /// Issues a certificate for a key of which only the public half is known here.
    fn certificate(&self, request: &EnrollRequest) -> String {
        self.ca.client_of(&request.uplink_key)
    }

    /// Serves one enrollment; gives the fleet back with what was asked, if anything was.
    fn serve(
        self,
        answer: impl FnOnce(&Self, &EnrollRequest) -> EnrollAnswer + Send + 'static,
    ) -> JoinHandle<(Self, Option<EnrollRequest>)> {
        tokio::spawn(async move {
            let Some(mut peer) = self.cloud.try_accept().await else {
                return (self, None);
            };
            let Some(Ok(Message::Text(text))) = peer.next().await else {
                return (self, None);
            };
            let request: EnrollRequest = serde_json::from_str(&text).unwrap();
            let answer = serde_json::to_string(&answer(&self, &request)).unwrap();
            peer.send(Message::text(answer)).await.unwrap();
            (self, Some(request))
        })
    }
}

fn written(token: &EnrollToken) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap())
}

fn good(fleet: &Fleet, request: &EnrollRequest) -> EnrollAnswer {
    EnrollAnswer::Enrolled(fleet.enrolled(fleet.certificate(request)))
}

/// Fails to enrol, and leaves nothing behind.
async fn fails(settings: &Settings) -> EnrollError {
    let error = soon("an error", enroll(settings)).await.unwrap_err();
    assert!(
        !settings.layout.root().exists(),
        "{error}: something was written"
    );
    error
}

#[tokio::test]
async fn an_enrolled_device_has_its_keys_and_what_it_is_to_believe() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::new().await;
    let settings = fleet.settings(dir.path());
    let layout = settings.layout.clone();
    let serving = fleet.serve(good);
    let file = soon("the enrollment", enroll(&settings)).await.unwrap();
    let (fleet, request) = serving.await.unwrap();
    let request = request.unwrap();
    let message = EnrollRequest::message(
        &SECRET,
        &request.uplink_key,
        &request.result_key,
        &request.epoch,
    );
    for (key, proof) in [
        (&request.uplink_key, &request.uplink_proof),
        (&request.result_key, &request.result_proof),
    ] {
        assert!(key.verifies(&message, &STANDARD.decode(proof).unwrap()));
    }
    assert_ne!(request.uplink_key, request.result_key);
    assert_eq!(DeviceFile::load(&layout).unwrap(), file);
    assert_eq!(file.device.as_str(), "dev-7");
    assert_eq!(file.server.parse::<Server>().unwrap(), settings.server);
    let identity = UplinkIdentity::load(&layout).unwrap();
    assert_eq!(identity.key.public(), request.uplink_key);
    assert_eq!(identity.ca, fleet.ca.der());
    crate::stream::tls::uplink_config(&identity).unwrap();
    let result = load_key(&layout.executor().join("result.key")).unwrap();
    assert_eq!(result.public(), file.result_key);
    let trust = std::fs::read(layout.executor().join("trust.json")).unwrap();
    TrustDocument::first(&Envelope::parse(&trust).unwrap(), &fleet.token().roots).unwrap();
    let epoch = std::fs::read_to_string(layout.executor().join("epoch")).unwrap();
    assert_eq!(epoch, request.epoch.as_str());
    for (path, mode) in [
        ("", 0o755),
        ("device.json", 0o644),
        ("sanitizer.key", 0o640),
        ("daemon", 0o700),
        ("daemon/uplink.key", 0o600),
        ("daemon/device.crt", 0o600),
        ("daemon/ca.crt", 0o600),
        ("daemon/enrolled.json", 0o600),
        ("executor", 0o700),
        ("executor/result.key", 0o600),
        ("executor/trust.json", 0o600),
        ("executor/epoch", 0o600),
        ("executor/enrolled.json", 0o600),
    ] {
        let found = std::fs::metadata(layout.root().join(path)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{path}");
    }
}

#[tokio::test]
async fn an_enrollment_is_replaced_only_by_force_and_keeps_the_sanitizer_key() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::new().await;
    let mut settings = fleet.settings(dir.path());
    let serving = fleet.serve(good);
    let first = soon("the enrollment", enroll(&settings)).await.unwrap();
    let sanitizer = std::fs::read(settings.layout.sanitizer_key()).unwrap();
    let (fleet, _) = serving.await.unwrap();
    let error = enroll(&settings).await.unwrap_err();
    assert!(matches!(error, EnrollError::Already(_)), "{error}");
    assert_eq!(DeviceFile::load(&settings.layout).unwrap(), first);
    settings.force = true;
    let serving = fleet.serve(good);
    let second = soon("the enrollment", enroll(&settings)).await.unwrap();
    serving.await.unwrap();
    assert_ne!(first.result_key, second.result_key);
    assert_ne!(first.epoch, second.epoch);
    assert_eq!(DeviceFile::load(&settings.layout).unwrap(), second);
    assert_eq!(
        std::fs::read(settings.layout.sanitizer_key()).unwrap(),
        sanitizer
    );
}

#[tokio::test]
async fn a_token_that_is_none_is_refused_before_anything_is_dialled() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::new().await;
    let whole = written(&fleet.token());
    for token in ["", "not base64!", "e30", &whole[..whole.len() - 5]] {
        let mut settings = fleet.settings(dir.path());
        settings.token = token.to_owned();
        let error = fails(&settings).await;
        assert!(matches!(error, EnrollError::Token(_)), "{error}");
    }
    let dialled = tokio::time::timeout(Duration::from_millis(50), fleet.cloud.try_accept());
    assert!(dialled.await.is_err());
}

#[tokio::test]
async fn a_used_token_is_told_in_the_orchestrators_words() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::new().await;
    let settings = fleet.settings(dir.path());
    let serving = fleet.serve(|_, _| EnrollAnswer::Refused {
        message: "this token\nwas used".to_owned(),
    });
    let error = fails(&settings).await;
    assert_eq!(
        error.to_string(),
        "the orchestrator refused: this tokenwas used"
    );
    serving.await.unwrap();
}

#[tokio::test]
async fn a_server_of_another_ca_does_not_even_see_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, other) = (Fleet::new().await, Fleet::new().await);
    let mut settings = fleet.settings(dir.path());
    settings.token = written(&other.token());
    let serving = fleet.serve(good);
    let error = fails(&settings).await;
    assert!(matches!(error, EnrollError::WrongCa { .. }), "{error}");
    let (_, request) = serving.await.unwrap();
    assert_eq!(request, None);
}

#[tokio::test]
async fn a_thief_who_sends_the_right_ca_beside_a_certificate_of_his_own_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, thief) = (Fleet::new().await, Ca::new());
    let tls = thief.server_showing(&fleet.ca, "localhost");
    let imposter = Fleet {
        cloud: Cloud::listen(tls).await,
        ca: thief,
        root: PrivateKey::generate().unwrap(),
    };
    let mut settings = imposter.settings(dir.path());
    settings.token = written(&fleet.token());
    let serving = imposter.serve(good);
    let error = fails(&settings).await;
    assert!(matches!(error, EnrollError::WrongCa { .. }), "{error}");
    let (_, request) = serving.await.unwrap();
    assert_eq!(request, None);
}

#[tokio::test]
async fn the_ca_can_come_from_a_file_and_must_be_the_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new().await;
    fleet.cloud = Cloud::listen(fleet.ca.server_alone("localhost")).await;
    let mut settings = fleet.settings(dir.path());
    let file = dir.path().join("ca.pem");
    let serving = fleet.serve(good);
    let error = fails(&settings).await;
    assert!(matches!(error, EnrollError::WrongCa { .. }), "{error}");
    let (fleet, _) = serving.await.unwrap();
    settings.ca = Some(file.clone());
    let error = fails(&settings).await;
    assert!(matches!(error, EnrollError::CaFile(_)), "{error}");
    std::fs::write(&file, Ca::new().pem()).unwrap();
    let error = fails(&settings).await;
    assert!(
        matches!(error, EnrollError::CaFileMismatch { .. }),
        "{error}"
    );
    std::fs::write(&file, fleet.ca.pem()).unwrap();
    let serving = fleet.serve(good);
    soon("the enrollment", enroll(&settings)).await.unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_does_not_fit_the_token_and_the_key_leaves_nothing() {
    type Answer = fn(&Fleet, &EnrollRequest) -> EnrollAnswer;
    let answers: [(Answer, &str); 5] = [
        (
            |fleet, request| {
                let mut enrolled = fleet.enrolled(fleet.certificate(request));
                enrolled.trust = fleet.trust(&PrivateKey::generate().unwrap());
                EnrollAnswer::Enrolled(enrolled)
            },
            "was not signed by the roots",
        ),
        (
            |fleet, request| {
                let mut enrolled = fleet.enrolled(fleet.certificate(request));
                enrolled.ca = Ca::new().pem();
                EnrollAnswer::Enrolled(enrolled)
            },
            "its CA is not the one",
        ),
        (
            |fleet, _| {
                let key = PrivateKey::generate().unwrap();
                EnrollAnswer::Enrolled(fleet.enrolled(fleet.ca.client(&key)))
            },
            "not for this device's key",
        ),
        (
            |fleet, request| {
                let foreign = Ca::new().client_of(&request.uplink_key);
                EnrollAnswer::Enrolled(fleet.enrolled(foreign))
            },
            "not from its CA",
        ),
        (
            |fleet, _| EnrollAnswer::Enrolled(fleet.enrolled("no certificate".to_owned())),
            "is damaged",
        ),
    ];
    let mut fleet = Fleet::new().await;
    for (answer, expected) in answers {
        let dir = tempfile::tempdir().unwrap();
        let settings = fleet.settings(dir.path());
        let serving = fleet.serve(answer);
        let error = fails(&settings).await;
        assert!(error.to_string().contains(expected), "{error}");
        (fleet, _) = serving.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_closes_or_has_expired_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::new().await;
    let settings = fleet.settings(dir.path());
    let closing = tokio::spawn(async move {
        fleet.cloud.try_accept().await;
    });
    let error = fails(&settings).await;
    assert!(matches!(error, EnrollError::NoAnswer(..)), "{error}");
    closing.await.unwrap();
    let error = fails(&settings).await;
    assert!(matches!(error, EnrollError::Unreachable(_)), "{error}");
    let fleet = Fleet::with(Validity::Past).await;
    let settings = fleet.settings(dir.path());
    let serving = fleet.serve(good);
    let error = fails(&settings).await;
    assert!(error.to_string().contains("set the clock"), "{error}");
    serving.await.unwrap();
}

#[tokio::test]
async fn a_device_whose_clock_is_behind_enrols() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::with(Validity::Future).await;
    let settings = fleet.settings(dir.path());
    let serving = fleet.serve(good);
    soon("the enrollment", enroll(&settings)).await.unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_folder_that_can_not_be_written_is_found_before_the_token_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::new().await;
    let mut settings = fleet.settings(dir.path());
    // proc(5) takes no folder, also from root.
    settings.layout = Layout::new("/proc/aizen-state");
    let error = soon("an error", enroll(&settings)).await.unwrap_err();
    assert!(matches!(error, EnrollError::NotWritable { .. }), "{error}");
}
