//! The audit, from outside.

use crate::fleet::{Fleet, program};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_row_breaks_the_audit_and_the_command_says_where() {
    let fleet = Fleet::start().await;
    for _ in 0..3 {
        fleet.token().await;
    }
    let intact = fleet.json(&["audit", "verify"]).await;
    assert_eq!(
        (&intact["intact"], &intact["entries"]),
        (&true.into(), &3.into())
    );
    let head = intact["head"].as_str().unwrap();
    fleet.token().await;
    let later = fleet.json(&["audit", "verify", "--head", head]).await;
    assert_eq!(later["holds_head"], true);

    let database = rusqlite::Connection::open(fleet.data().database()).unwrap();
    database
        .execute_batch(
            "DROP TRIGGER audit_is_never_altered;
             UPDATE audit SET detail = '{\"expires_at\":\"9999\"}' WHERE n = 2",
        )
        .unwrap();
    let broken = fleet.command(&["audit", "verify"]).await;
    assert_eq!(broken.status.code(), Some(4));
    let message = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(message.contains("entry 2 was altered"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_takes_nobody_without_the_token() {
    let fleet = Fleet::start().await;
    for token in [None, Some("wrong"), Some("")] {
        let (status, _) = fleet
            .request(reqwest::Method::GET, "/devices", token, None)
            .await;
        assert_eq!(status, 401, "{token:?}");
    }
    let missing = fleet
        .request(reqwest::Method::GET, "/nothing", None, None)
        .await;
    assert_eq!(missing.0, 401, "paths are not for strangers either");
    let elsewhere = program(fleet.directory(), &["devices", "--data", "nowhere"]).await;
    assert_eq!(elsewhere.status.code(), Some(75));
}
