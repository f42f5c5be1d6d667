//! Who is refused: certificates, names, versions of TLS.

use super::*;

/// Runs an uplink against a server that it must refuse, or that must refuse it.
async fn refused(identity: &UplinkIdentity, cloud: Cloud) -> String {
    let dir = tempfile::tempdir().unwrap();
    let spool = SpoolHandle::new(Spool::open(dir.path(), SpoolLimits::default()));
    spool.append_record(&evidence::record(1)).await.unwrap();
    let (_commands, command_queue) = mpsc::channel(1);
    let (event_queue, mut events) = mpsc::channel(1);
    let (_, about) = watch::channel(About {
        device: "dev-1".parse().unwrap(),
        epoch: "ep-1".parse().unwrap(),
        boot: "boot-1".parse().unwrap(),
        agent: String::new(),
        standing: Standing {
            isolation: Isolation {
                level: 0,
                layers: Vec::new(),
            },
            trust_version: 1,
            takes_changes: false,
        },
    });
    let uplink = Uplink::new(
        settings(dir.path(), "localhost", cloud.address().port()),
        identity,
        spool.clone(),
        about,
        command_queue,
        event_queue,
    )
    .unwrap();
    let mut state = uplink.state();
    let running = tokio::spawn(uplink.run());
    let server = tokio::spawn(async move {
        let mut heard = Vec::new();
        loop {
            if let Some(mut peer) = cloud.try_accept().await {
                heard.extend(hear(&mut peer).await);
                return heard;
            }
        }
    });
    let error = last_error(&mut state).await;
    assert!(!server.is_finished() || server.await.unwrap().is_empty());
    assert!(events.try_recv().is_err());
    assert_eq!(spool.status().await.unwrap().frames, 1);
    running.abort();
    error
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused() {
    let cloud = Cloud::with_ca(&Ca::new()).await;
    let error = refused(&Ca::new().identity(), cloud).await;
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn a_server_for_another_name_is_refused() {
    let ca = Ca::new();
    let tls = ca.server(
        "other.example",
        Validity::Always,
        &[&TLS13],
        Clients::Certified,
    );
    let error = refused(&ca.identity(), Cloud::listen(tls).await).await;
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_1_3_is_refused() {
    let ca = Ca::new();
    let tls = ca.server("localhost", Validity::Always, &[&TLS12], Clients::Certified);
    let error = refused(&ca.identity(), Cloud::listen(tls).await).await;
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn a_server_refuses_a_device_with_a_certificate_of_another_ca() {
    let (ours, other) = (Ca::new(), Ca::new());
    let mut identity = other.identity();
    identity.ca = ours.der();
    let error = refused(&identity, Cloud::with_ca(&ours).await).await;
    assert!(error.contains("alert"), "{error}");
}

#[tokio::test]
async fn an_expired_server_is_refused_and_one_from_the_future_is_not() {
    let ca = Ca::new();
    let tls = ca.server("localhost", Validity::Past, &[&TLS13], Clients::Certified);
    let error = refused(&ca.identity(), Cloud::listen(tls).await).await;
    assert!(error.contains("expired"), "{error}");
    let tls = ca.server("localhost", Validity::Future, &[&TLS13], Clients::Certified);
    let cloud = Cloud::listen(tls).await;
    let _device = Device::start(&ca.identity(), &cloud);
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
}

#[test]
fn a_certificate_for_another_key_is_no_identity() {
    let ca = Ca::new();
    let mut identity = ca.identity();
    identity.key = PrivateKey::generate().unwrap();
    assert!(crate::stream::tls::uplink_config(&identity).is_err());
}
