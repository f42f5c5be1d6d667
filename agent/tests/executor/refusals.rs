//! What is not done, and what is said about it.

use std::fs;

use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::effect::{RehearsalResult, Rehearsed};
use aizen_protocol::id::{Digest, PackageId};
use aizen_protocol::outcome::End;
use aizen_protocol::package::{Binding, BindingKind, DeliveryMode, Package, Script};
use aizen_protocol::reason::Reason;
use aizen_sanitizer::{Policy, Sanitizer, SanitizerKey};
use nix::mount::{MsFlags, mount};

use crate::device::{BEFORE, Device, MEND, ended, refused, wants_on_site, with_device};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("refusals_that_name_this_device_are_reported_once", refusals),
    (
        "over_the_uplink_only_the_effect_that_was_rehearsed_for_exactly_this_script_is_taken",
        only_rehearsed,
    ),
    ("strangers_may_look_and_nothing_else", strangers),
    (
        "without_space_for_a_safe_rollback_nothing_starts",
        without_space,
    ),
    (
        "a_script_sees_real_values_and_only_those_that_belong_to_its_pseudonyms",
        bound,
    ),
];

fn only_rehearsed() {
    with_device(async |mut device: Device| {
        device.policy("allow_changes = true\nmin_isolation = 1\n");
        device.start().await;
        let mut package = device.package(MEND);
        package.delivery = DeliveryMode::Uplink;
        let refusal = async |device: &mut Device, package: &Package| {
            let envelope = device.sign(package);
            let delivery = device.deliver(&envelope);
            let mut life = device.execute(envelope, Some(delivery)).await;
            refused(&mut life).await
        };
        assert_eq!(
            refusal(&mut device, &package).await,
            Reason::PolicyDenied,
            "nothing was rehearsed"
        );

        let asked = ExecutorRequest::Rehearse {
            package: device.sign(&package),
            bindings: Bindings::new(),
        };
        let ExecutorAnswer::Rehearsed { signed, .. } = device.ask(asked).await else {
            panic!("no rehearsal");
        };
        let shown: Rehearsed =
            serde_json::from_slice(&signed.unverified_payload().unwrap()).unwrap();
        let RehearsalResult::Effect(effect) = shown.result else {
            panic!("no effect");
        };
        package.id = PackageId::fresh();
        package.effect = Some(Digest::of(b"nothing changes"));
        assert_eq!(
            refusal(&mut device, &package).await,
            Reason::PolicyDenied,
            "another effect"
        );

        package.id = PackageId::fresh();
        package.effect = Some(effect.digest());
        let mut other = package.clone();
        other.script = Script::of(b"true\n");
        assert_eq!(
            refusal(&mut device, &other).await,
            Reason::PolicyDenied,
            "another script"
        );

        // Also after a restart: what was rehearsed is remembered.
        device.kill();
        device.start().await;
        let envelope = device.sign(&package);
        let delivery = device.deliver(&envelope);
        let mut life = device.execute(envelope, Some(delivery)).await;
        let answer = life.recv::<ExecutorAnswer>().await.unwrap().unwrap();
        assert!(
            matches!(answer, ExecutorAnswer::Admitted { .. }),
            "{answer:?}"
        );
    });
}

fn refusals() {
    with_device(async |mut device: Device| {
        device.policy("allow_changes = false\n");
        device.start().await;
        let envelope = device.sign(&device.package(MEND));
        for _ in 0..3 {
            let mut life = device.execute(envelope.clone(), None).await;
            assert_eq!(refused(&mut life).await, Reason::ObserveOnly);
        }
        let told = device.outcomes().await;
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].end, told[0].reason),
            (End::Refused, Some(Reason::ObserveOnly))
        );

        let mut foreign = device.package(MEND);
        foreign.target[0].device = "dev-2".parse().unwrap();
        let mut life = device.execute(device.sign(&foreign), None).await;
        assert_eq!(refused(&mut life).await, Reason::WrongTarget);
        assert_eq!(device.outcomes().await.len(), 1, "not ours to report");

        device.policy("allow_changes = true\nmin_isolation = 1\n");
        assert_eq!(
            device.ask_as(0, &ExecutorRequest::Pause),
            ExecutorAnswer::Done
        );
        let verdict = device
            .ask(ExecutorRequest::Verify {
                package: envelope.clone(),
            })
            .await;
        assert!(
            matches!(&verdict, ExecutorAnswer::Refused(r) if r.reason == Reason::Paused),
            "{verdict:?}"
        );
        device.kill();
        device.start().await;
        let ExecutorAnswer::Status(status) = device.ask(ExecutorRequest::Status).await else {
            panic!("no status");
        };
        assert!(
            status.paused && status.changes_allowed,
            "a pause outlives the process"
        );
        assert_eq!(
            device.ask_as(0, &ExecutorRequest::Resume),
            ExecutorAnswer::Done
        );
        let verdict = device
            .ask(ExecutorRequest::Verify { package: envelope })
            .await;
        assert!(
            matches!(verdict, ExecutorAnswer::Verified { .. }),
            "{verdict:?}"
        );
    });
}

fn strangers() {
    with_device(async |mut device: Device| {
        device.start().await;
        let status = device.ask_as(65_534, &ExecutorRequest::Status);
        assert!(matches!(status, ExecutorAnswer::Status(_)), "{status:?}");
        let package = device.sign(&device.package(MEND));
        for request in [
            ExecutorRequest::Pause,
            ExecutorRequest::Outcomes,
            ExecutorRequest::Watch,
            ExecutorRequest::Execute {
                package,
                delivery: None,
                bindings: Bindings::new(),
            },
        ] {
            let answer = device.ask_as(65_534, &request);
            assert!(
                matches!(&answer, ExecutorAnswer::Failed { message } if message.contains("aizen-operators")),
                "{answer:?}"
            );
        }
        assert!(device.picture().starts_with(BEFORE));
    });
}

fn without_space() {
    with_device(async |mut device: Device| {
        let state = device.path("state");
        let kept: Vec<_> = fs::read_dir(&state)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name(), fs::read(e.path()).unwrap()))
            .collect();
        let options = Some("size=1m,mode=0700");
        mount(
            Some("none"),
            &state,
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .unwrap();
        for (name, bytes) in kept {
            fs::write(state.join(name), bytes).unwrap();
        }
        device.start().await;
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        assert_eq!(refused(&mut life).await, Reason::NoSpace);
        assert!(device.picture().starts_with(BEFORE));
    });
}

fn bound() {
    with_device(async |mut device: Device| {
        device.start().await;
        let sanitizer = Sanitizer::new(SanitizerKey::from_bytes([7; 32]), Policy::default());
        let real = "198.51.100.77";
        let pseudonym = sanitizer
            .pseudonym_of(BindingKind::Address, real)
            .expect("a pseudonym");
        assert_ne!(pseudonym, real);
        let binding = Binding {
            kind: BindingKind::Address,
            pseudonym: pseudonym.clone(),
        };
        let script = format!(
            "printf 'nameserver %s\\n' \"${}\" | change file write /etc/resolv.conf\n",
            binding.variable()
        );
        let mut package = device.package(&script);
        package.bindings.push(binding);
        let envelope = device.sign(&package);
        let give = |value: Option<&str>| {
            let pairs = value.map(|v| (pseudonym.clone(), v.to_owned()));
            ExecutorRequest::Execute {
                package: envelope.clone(),
                delivery: None,
                bindings: pairs.into_iter().collect(),
            }
        };
        for (value, reason) in [
            (None, Reason::UnknownBinding),
            (Some("198.51.100.78"), Reason::BindingMismatch),
            (Some("198.51.100.77; reboot"), Reason::BindingMismatch),
        ] {
            let answer = device.ask(give(value)).await;
            assert!(
                matches!(&answer, ExecutorAnswer::Refused(r) if r.reason == reason),
                "{value:?}: {answer:?}"
            );
        }
        let mut life = device.connect().await;
        life.send(&give(Some(real))).await.unwrap();
        let change = wants_on_site(&mut life).await;
        device.ask_as(0, &ExecutorRequest::ConfirmOnSite { change });
        let (local, signed) = ended(&mut life).await;
        assert_eq!(local.end, End::Confirmed, "{}", local.detail);
        assert!(device.picture().starts_with("nameserver 198.51.100.77\n"));
        let payload = signed.unverified_payload().unwrap();
        let leaves = String::from_utf8(payload).unwrap();
        assert!(!leaves.contains(real), "{leaves}");
        assert!(leaves.contains(&pseudonym), "{leaves}");
    });
}
