//! Who gets in, and how often.

use aizen_protocol::frame::EnrollAnswer;
use aizen_protocol::id::Digest;
use aizen_protocol::key::PrivateKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};

use crate::device::{Device, enroll, enroll_request, read_token, tls, websocket};
use crate::fleet::Fleet;

fn refusal(answer: EnrollAnswer) -> String {
    match answer {
        EnrollAnswer::Refused { message } => message,
        EnrollAnswer::Enrolled(enrolled) => panic!("{} was enrolled", enrolled.device),
    }
}

fn keys() -> (PrivateKey, PrivateKey) {
    (
        PrivateKey::generate().unwrap(),
        PrivateKey::generate().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_enrols_one_device_and_no_second() {
    let fleet = Fleet::start().await;
    let token = read_token(&fleet.token().await);
    let (a, b) = keys();
    let first = enroll(&fleet, &enroll_request(&token, &a, &b)).await;
    assert!(matches!(first, EnrollAnswer::Enrolled(_)));
    let (c, d) = keys();
    let message = refusal(enroll(&fleet, &enroll_request(&token, &c, &d)).await);
    assert!(message.contains("used already"), "{message}");
    assert_eq!(fleet.audited("enrollment_refused").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_in_two_hands_at_once_enrols_one() {
    let fleet = Fleet::start().await;
    let token = read_token(&fleet.token().await);
    let requests: Vec<_> = (0..4)
        .map(|_| {
            let (a, b) = keys();
            enroll_request(&token, &a, &b)
        })
        .collect();
    let answers =
        futures_util::future::join_all(requests.iter().map(|request| enroll(&fleet, request)))
            .await;
    let enrolled = answers
        .iter()
        .filter(|answer| matches!(answer, EnrollAnswer::Enrolled(_)));
    assert_eq!(enrolled.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_proof_an_unknown_token_and_one_key_for_two_duties_are_refused_and_spend_nothing() {
    let fleet = Fleet::start().await;
    let token = read_token(&fleet.token().await);
    let (uplink, result) = keys();
    let good = enroll_request(&token, &uplink, &result);

    let mut stolen = good.clone();
    stolen.result_proof = STANDARD.encode(uplink.sign(b"something else"));
    let message = refusal(enroll(&fleet, &stolen).await);
    assert!(message.contains("result key did not sign"), "{message}");

    let mut swapped = good.clone();
    swapped.uplink_key = PrivateKey::generate().unwrap().public();
    let message = refusal(enroll(&fleet, &swapped).await);
    assert!(message.contains("uplink key did not sign"), "{message}");

    let one = enroll_request(&token, &uplink, &uplink);
    assert!(refusal(enroll(&fleet, &one).await).contains("the same"));

    let mut unknown = token.clone();
    unknown.secret = Digest::of(b"guessed");
    let guessed = enroll_request(&unknown, &uplink, &result);
    assert!(refusal(enroll(&fleet, &guessed).await).contains("unknown here"));

    assert!(matches!(
        enroll(&fleet, &good).await,
        EnrollAnswer::Enrolled(_)
    ));
    let token = read_token(&fleet.token().await);
    let again = enroll_request(&token, &uplink, &PrivateKey::generate().unwrap());
    assert!(refusal(enroll(&fleet, &again).await).contains("enrolled already"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_expires() {
    let fleet = Fleet::start().await;
    let created = fleet.json(&["token", "create", "--ttl", "1s"]).await;
    let expires: Timestamp = created["expires_at"].as_str().unwrap().parse().unwrap();
    let left = expires.duration_since(Timestamp::now()) + SignedDuration::from_millis(5);
    if let Ok(left) = left.try_into() {
        tokio::time::sleep(left).await;
    }
    let token = read_token(created["token"].as_str().unwrap());
    let (a, b) = keys();
    let message = refusal(enroll(&fleet, &enroll_request(&token, &a, &b)).await);
    assert!(message.contains("expired at"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_uplink_takes_no_stranger() {
    let fleet = Fleet::start().await;
    let device = Device::enrolled_in(&fleet).await;
    let nobody = tls(fleet.address(), &device.enrolled.ca, None)
        .await
        .unwrap();
    let error = websocket(nobody, "/v1/uplink").await.unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");

    // A certificate of another CA ends the handshake.
    let other = Fleet::start().await;
    let stranger = Device::enrolled_in(&other).await;
    let client = (stranger.enrolled.certificate.as_str(), &stranger.uplink);
    let refused = match tls(fleet.address(), &device.enrolled.ca, Some(client)).await {
        Ok(stream) => websocket(stream, "/v1/uplink").await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}
