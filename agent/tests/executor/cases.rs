//! One change from request to report.

use std::time::Duration;

use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::effect::{RehearsalResult, Rehearsed};
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::Digest;
use aizen_protocol::outcome::{End, Stage};
use aizen_protocol::package::DeliveryMode;
use aizen_protocol::package::manifest::{Class, Probe};
use aizen_protocol::reason::Reason;
use aizen_protocol::statement::{Confirmation, Nonce};

use crate::device::{AFTER, Device, MEND, ended, refused, until, wants_on_site, with_device};

pub(crate) const ALL: &[(&str, fn())] = &[
    (
        "a_change_confirmed_on_the_spot_by_another_process_stays",
        confirmed_on_site,
    ),
    (
        "the_process_that_asked_can_not_confirm_and_nobody_confirms_so_it_is_undone",
        undone_by_deadline,
    ),
    (
        "a_change_over_the_uplink_stays_only_with_the_orchestrators_word_about_its_nonce",
        confirmed_by_uplink,
    ),
    ("a_script_that_fails_is_undone", undone_by_failure),
    (
        "what_is_not_granted_is_not_done_and_a_second_change_is_busy",
        denied_and_busy,
    ),
    (
        "a_probe_that_breaks_undoes_the_change_before_its_deadline",
        undone_by_probe,
    ),
    ("a_person_can_have_it_undone", undone_by_a_person),
    (
        "a_script_beyond_its_time_is_ended_and_undone",
        undone_by_timeout,
    ),
    (
        "a_diagnosis_runs_on_an_observing_device_and_changes_nothing",
        diagnosed,
    ),
    (
        "a_rehearsal_shows_the_effect_and_touches_nothing",
        rehearsed,
    ),
    (
        "what_changes_is_what_was_rehearsed_and_where_policy_says_so_it_must_be",
        as_approved,
    ),
    (
        "a_package_confirmed_over_the_uplink_is_not_confirmed_by_what_was_signed_before",
        signed_before,
    ),
];

fn confirmed_on_site() {
    with_device(async |mut device: Device| {
        device.start().await;
        let package = device.package(MEND);
        let envelope = device.sign(&package);
        let mut life = device.execute(envelope.clone(), None).await;
        let change = wants_on_site(&mut life).await;
        let answer = device.ask_as(
            0,
            &ExecutorRequest::ConfirmOnSite {
                change: change.clone(),
            },
        );
        assert_eq!(answer, ExecutorAnswer::Done);
        let (local, signed) = ended(&mut life).await;
        assert_eq!(local.end, End::Confirmed, "{local:?}");
        assert!(device.picture().starts_with(AFTER), "{}", device.picture());
        let stages: Vec<Stage> = local.steps.iter().map(|s| s.stage).collect();
        assert_eq!(
            stages,
            [
                Stage::Admitted,
                Stage::Snapshotted,
                Stage::Armed,
                Stage::Running,
                Stage::Applied,
                Stage::Probing,
                Stage::Confirmed
            ]
        );
        assert_ne!(local.state_before, local.state_after);
        assert_eq!(local.effect.as_ref().unwrap().changes.len(), 2);
        assert!(local.isolation.level >= 1);

        let outcome = device.believe(&signed);
        assert_eq!(outcome.end, End::Confirmed);
        assert_eq!(outcome.change, Some(change));
        assert_eq!(
            outcome.package_digest,
            Some(Digest::of(&package.to_payload().unwrap()))
        );
        assert_eq!(device.outcomes().await, [outcome]);
        let digest = Digest::of(&signed.unverified_payload().unwrap());
        for _ in 0..2 {
            let acknowledged = device
                .ask(ExecutorRequest::Acknowledge { outcome: digest })
                .await;
            assert_eq!(acknowledged, ExecutorAnswer::Done);
            assert!(device.outcomes().await.is_empty());
        }

        let mut again = device.execute(envelope, None).await;
        assert_eq!(refused(&mut again).await, Reason::Replayed);
        assert!(
            device.outcomes().await.is_empty(),
            "its one outcome was told"
        );
    });
}

fn undone_by_deadline() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let mut package = device.package(MEND);
        package.manifest.confirm.within_s = 4;
        let mut life = device.execute(device.sign(&package), None).await;
        let change = wants_on_site(&mut life).await;
        assert!(device.picture().starts_with(AFTER));
        let own = device.ask(ExecutorRequest::ConfirmOnSite { change }).await;
        assert!(
            matches!(&own, ExecutorAnswer::Failed { message } if message.contains("log in anew")),
            "{own:?}"
        );
        let (local, signed) = ended(&mut life).await;
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        assert!(
            local.detail.0.contains("a confirmation"),
            "{}",
            local.detail
        );
        assert_eq!(local.state_before, local.state_after);
        assert!(local.state_before.is_some());
        assert_eq!(device.picture(), before);
        assert_eq!(device.outcomes().await, [device.believe(&signed)]);
    });
}

fn confirmed_by_uplink() {
    with_device(async |mut device: Device| {
        device.start().await;
        let mut package = device.package(MEND);
        package.delivery = DeliveryMode::Uplink;
        package.manifest.confirm.probes.push(Probe::Uplink(true));
        let envelope = device.sign(&package);
        let mut undelivered = device.execute(envelope.clone(), None).await;
        assert_eq!(refused(&mut undelivered).await, Reason::DeliveryMissing);
        let delivery = device.deliver(&envelope);
        let mut life = device.execute(envelope, Some(delivery)).await;
        let wanted = until(&mut life, |answer| match answer {
            ExecutorAnswer::ConfirmWanted { confirmation } => Some(confirmation.clone()),
            _ => None,
        })
        .await;
        let stale = Confirmation {
            nonce: Nonce(Digest::of(b"an earlier one")),
            ..wanted.clone()
        };
        for statement in [
            device.confirmation(&stale, &device.orchestrator),
            device.confirmation(&wanted, &device.approver),
        ] {
            let answer = device.ask(ExecutorRequest::Confirm { statement }).await;
            assert!(
                matches!(answer, ExecutorAnswer::Failed { .. }),
                "{answer:?}"
            );
        }
        let by_hand = device.ask_as(
            0,
            &ExecutorRequest::ConfirmOnSite {
                change: wanted.change.clone(),
            },
        );
        assert!(
            matches!(by_hand, ExecutorAnswer::Failed { .. }),
            "{by_hand:?}"
        );
        let statement = device.confirmation(&wanted, &device.orchestrator);
        assert_eq!(
            device.ask(ExecutorRequest::Confirm { statement }).await,
            ExecutorAnswer::Done
        );
        let (local, _) = ended(&mut life).await;
        assert_eq!(local.end, End::Confirmed, "{local:?}");
        assert!(device.picture().starts_with(AFTER));
    });
}

fn undone_by_failure() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let package = device.package(&format!("{MEND}echo it went wrong\nexit 3\n"));
        let mut life = device.execute(device.sign(&package), None).await;
        let (local, _) = ended(&mut life).await;
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        assert!(local.detail.0.contains("exit status 3"), "{}", local.detail);
        assert!(local.script.unwrap().output.0.contains("it went wrong"));
        assert_eq!(device.picture(), before);
        assert_eq!(local.state_before, local.state_after);
    });
}

fn denied_and_busy() {
    with_device(async |mut device: Device| {
        device.start().await;
        let script = "change sysctl net.ipv4.ip_forward=0 && exit 9\nchange file write /etc/hosts <&- && exit 9\nexit 0\n";
        let package = device.package(script);
        let mut life = device.execute(device.sign(&package), None).await;
        let change = wants_on_site(&mut life).await;

        let other = device.sign(&device.package(MEND));
        let mut second = device.execute(other, None).await;
        assert_eq!(refused(&mut second).await, Reason::Busy);

        let undo = device.ask(ExecutorRequest::RollBack { change }).await;
        assert_eq!(undo, ExecutorAnswer::Done);
        let (local, _) = ended(&mut life).await;
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        assert!(local.detail.0.contains("denied"), "{}", local.detail);
        assert!(local.effect.unwrap().changes.is_empty());
    });
}

fn undone_by_probe() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let mut package = device.package("change link set lo down\n");
        package.manifest.operations =
            serde_json::from_str(r#"[{"link":{"set":{"dev":"lo","up":false}}}]"#).unwrap();
        package.manifest.confirm.within_s = 120;
        let mut life = device.execute(device.sign(&package), None).await;
        let (local, _) = ended(&mut life).await;
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        assert!(
            local.detail.0.contains("ping 127.0.0.1 held before"),
            "{}",
            local.detail
        );
        let probe = local
            .probes
            .iter()
            .find(|p| p.probe.0 == "ping 127.0.0.1")
            .unwrap();
        assert_eq!((probe.before, probe.after), (true, Some(false)));
        assert_eq!(device.picture(), before);
        assert_eq!(local.state_before, local.state_after);
    });
}

fn undone_by_a_person() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        let change = wants_on_site(&mut life).await;
        let mut follower = device.connect().await;
        follower.send(&ExecutorRequest::Watch).await.unwrap();
        let followed = wants_on_site(&mut follower).await;
        assert_eq!(followed, change, "a late follower hears everything");
        let answer = device.ask_as(0, &ExecutorRequest::RollBack { change });
        assert_eq!(answer, ExecutorAnswer::Done);
        let (local, _) = ended(&mut life).await;
        assert_eq!(ended(&mut follower).await.0, local);
        assert_eq!(local.end, End::RolledBack);
        assert_eq!(device.picture(), before);
        let ExecutorAnswer::Changes { changes } = device.ask(ExecutorRequest::Changes).await else {
            panic!("no changes");
        };
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].stage, Stage::RolledBack);
    });
}

fn undone_by_timeout() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let mut package = device.package(&format!("{MEND}sleep 600\n"));
        package.manifest.timeout_s = 1;
        let mut life = device.execute(device.sign(&package), None).await;
        let (local, _) = ended(&mut life).await;
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        assert!(
            local.detail.0.contains("did not end in its time"),
            "{}",
            local.detail
        );
        assert_eq!(device.picture(), before);
    });
}

fn diagnosed() {
    with_device(async |mut device: Device| {
        device.policy("allow_changes = false\nmin_isolation = 1\n");
        device.start().await;
        let before = device.picture();
        let mut package =
            device.package("echo seen\nchange sysctl net.ipv4.ip_forward=1 || echo denied\n");
        package.manifest.class = Class::Diagnose;
        package.manifest.operations.clear();
        let payload = package.to_payload().unwrap();
        let envelope = Envelope::sign(PayloadType::Package, &payload, &[&device.orchestrator]);
        let mut life = device.execute(envelope, None).await;
        let (local, signed) = ended(&mut life).await;
        assert_eq!(local.end, End::Diagnosed, "{local:?}");
        let output = local.script.unwrap().output.0;
        assert!(
            output.contains("seen") && output.contains("denied"),
            "{output}"
        );
        assert_eq!(device.picture(), before);
        assert_eq!(device.believe(&signed).end, End::Diagnosed);
    });
}

fn rehearsed() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let package = device.sign(&device.package(MEND));
        let mut connection = device.connect().await;
        let request = ExecutorRequest::Rehearse {
            package,
            bindings: Bindings::new(),
        };
        connection.send(&request).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(30), connection.recv())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let ExecutorAnswer::Rehearsed { local, signed } = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(local.changes.len(), 2, "{local:?}");
        let known = [device.result.public()];
        assert!(signed.open(PayloadType::Effect, known.iter()).is_ok());
        assert_eq!(device.picture(), before);
    });
}

fn as_approved() {
    with_device(async |mut device: Device| {
        device.policy("allow_changes = true\nmin_isolation = 1\neffect_must_match = true\nrehearsed_only = false\n");
        device.start().await;
        let mut package = device.package(MEND);
        let answer = device
            .ask(ExecutorRequest::Rehearse {
                package: device.sign(&package),
                bindings: Bindings::new(),
            })
            .await;
        let ExecutorAnswer::Rehearsed { signed, .. } = answer else {
            panic!("{answer:?}");
        };
        let known = [device.result.public()];
        let opened = signed.open(PayloadType::Effect, known.iter()).unwrap();
        let rehearsed: Rehearsed = serde_json::from_slice(opened.payload()).unwrap();
        let RehearsalResult::Effect(effect) = rehearsed.result else {
            panic!("{rehearsed:?}");
        };

        let before = device.picture();
        package.effect = Some(Digest::of(b"another effect"));
        let mut life = device.execute(device.sign(&package), None).await;
        let (local, _) = ended(&mut life).await;
        assert_eq!(local.end, End::RolledBack);
        assert!(
            local.detail.0.contains("not what was approved"),
            "{}",
            local.detail
        );
        assert_eq!(device.picture(), before);

        package.id = aizen_protocol::id::PackageId::fresh();
        package.effect = Some(effect.digest());
        let mut life = device.execute(device.sign(&package), None).await;
        let change = wants_on_site(&mut life).await;
        device.ask_as(0, &ExecutorRequest::ConfirmOnSite { change });
        let (_, signed) = ended(&mut life).await;
        let outcome = device.believe(&signed);
        assert_eq!(outcome.end, End::Confirmed);
        assert_eq!(outcome.effect_as_approved(), Some(true));
    });
}

fn signed_before() {
    with_device(async |mut device: Device| {
        device.start().await;
        let mut package = device.package("true\n");
        package.delivery = DeliveryMode::Uplink;
        package.manifest.confirm.within_s = 3;
        let envelope = device.sign(&package);
        let early = Confirmation {
            device: "dev-1".parse().unwrap(),
            package: Digest::of(&package.to_payload().unwrap()),
            change: "chg-unknown".parse().unwrap(),
            nonce: Nonce(Digest([0; 32])),
        };
        let statement = device.confirmation(&early, &device.orchestrator);
        let answer = device
            .ask(ExecutorRequest::Confirm {
                statement: statement.clone(),
            })
            .await;
        assert!(
            matches!(answer, ExecutorAnswer::Failed { .. }),
            "{answer:?}"
        );
        let delivery = device.deliver(&envelope);
        let mut life = device.execute(envelope, Some(delivery)).await;
        until(&mut life, |answer| match answer {
            ExecutorAnswer::ConfirmWanted { .. } => Some(()),
            _ => None,
        })
        .await;
        let answer = device.ask(ExecutorRequest::Confirm { statement }).await;
        assert!(
            matches!(answer, ExecutorAnswer::Failed { .. }),
            "{answer:?}"
        );
        assert_eq!(ended(&mut life).await.0.end, End::RolledBack);
    });
}
