//! The last network that was known good is kept, and put back where undoing did not bring back what held; and what is
//! told of a change after a restart.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::process::Command;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest, RescueEnd, RescueProfile};
use aizen_protocol::outcome::{End, Outcome};
use aizen_protocol::package::Package;
use aizen_protocol::reason::Reason;
use nix::mount::{MsFlags, mount};

use crate::device::{
    Device, FORWARD, MEND, NONE, ended, refused, until, wait_until, wants_on_site, with_device,
};
use crate::{crashes, lab, lockouts};

pub(crate) const ALL: &[(&str, fn())] = &[
    (
        "a_network_is_kept_as_the_rescue_profile_only_while_its_gateway_answers",
        kept_if_good,
    ),
    (
        "a_rollback_without_its_snapshot_ends_with_the_last_good_network",
        put_back,
    ),
    (
        "a_rescue_that_was_cut_short_is_not_begun_again_in_its_boot",
        once,
    ),
    (
        "nothing_is_put_back_from_the_rescue_profile_while_what_held_holds",
        not_needed,
    ),
    (
        "a_policy_without_rescue_keeps_nothing_and_puts_nothing_back",
        switched_off,
    ),
    (
        "a_person_puts_a_broken_network_back_to_the_last_good_one",
        by_hand,
    ),
    (
        "a_damaged_rescue_profile_is_named_and_changes_nothing",
        damaged,
    ),
    (
        "a_disk_without_room_for_a_rescue_profile_harms_no_change",
        full_disk,
    ),
    (
        "after_a_restart_the_end_waits_for_the_network_and_says_what_differs",
        told_after_a_restart,
    ),
    (
        "a_restart_whose_network_does_not_come_up_ends_with_the_last_good_network",
        rescued_after_a_restart,
    ),
];

const POLICY: &str = "allow_changes = true\nmin_isolation = 1\nrehearsed_only = false\n";
const DEFAULT: &str = "default via 192.0.2.1 dev wan";

/// An uplink whose gateway answers for as long as the file is open.
fn uplink() -> File {
    let there = lockouts::elsewhere();
    let path = format!("/proc/{}/fd/{}", std::process::id(), there.as_raw_fd());
    lab::ip("link add wan type veth peer name far0");
    lab::ip(&format!("link set far0 netns {path}"));
    far(&there, &["link", "set", "far0", "up"]);
    far(&there, &["address", "add", "192.0.2.1/24", "dev", "far0"]);
    lab::ip("link set wan up");
    lab::ip("address add 192.0.2.2/24 dev wan");
    lab::ip(&format!("route add {DEFAULT}"));
    there
}

fn far(there: &File, words: &[&str]) {
    let path = format!("/proc/{}/fd/{}", std::process::id(), there.as_raw_fd());
    let status = Command::new("nsenter")
        .args([&format!("--net={path}"), "ip"])
        .args(words)
        .status();
    assert!(status.unwrap().success(), "{words:?}");
}

fn has_default() -> bool {
    lab::ip("route show default").contains(DEFAULT)
}

/// A script that takes the uplink down, with the default route that stands on it, and then waits.
fn cuts(device: &Device) -> Package {
    let mut package = device.package("change link set wan down\nexec sleep 4343\n");
    package.manifest.operations =
        serde_json::from_str(r#"[{"link":{"set":{"dev":"wan","up":false}}}]"#).unwrap();
    package
}

/// Killed in the middle, and without the state before.
async fn cut_without_a_way_back(device: &mut Device) {
    let package = cuts(device);
    let mut life = device.execute(device.sign(&package), None).await;
    let change = until(&mut life, |answer| match answer {
        ExecutorAnswer::Admitted { change } => Some(change.clone()),
        _ => None,
    })
    .await;
    wait_until("the cut", || !has_default()).await;
    profile_file(device).await;
    device.kill();
    let snapshot = device.path("state/snapshots").join(change.as_str());
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&snapshot, bytes).unwrap();
}

async fn profile_file(device: &Device) {
    let path = device.path("state/rescue");
    wait_until("a rescue profile", || path.exists()).await;
}

async fn the_outcome(device: &Device) -> Outcome {
    let mut told = device.outcomes().await;
    told.retain(|outcome| outcome.end != End::Refused);
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0)
}

fn shown(answer: ExecutorAnswer) -> Option<RescueProfile> {
    match answer {
        ExecutorAnswer::Rescue { profile } => profile,
        other => panic!("{other:?}"),
    }
}

fn applied(answer: ExecutorAnswer) -> RescueEnd {
    match answer {
        ExecutorAnswer::Rescued(end) => end,
        other => panic!("{other:?}"),
    }
}

fn message(answer: ExecutorAnswer) -> String {
    match answer {
        ExecutorAnswer::Failed { message } => message,
        other => panic!("{other:?}"),
    }
}

async fn confirmed(device: &Device, package: &Package) {
    let mut life = device.execute(device.sign(package), None).await;
    let change = wants_on_site(&mut life).await;
    let confirm = ExecutorRequest::ConfirmOnSite { change };
    assert_eq!(device.ask_as(0, &confirm), ExecutorAnswer::Done);
    let (outcome, _) = ended(&mut life).await;
    assert_eq!(outcome.end, End::Confirmed, "{}", outcome.detail);
}

fn kept_if_good() {
    with_device(async |mut device: Device| {
        device.start().await;
        confirmed(&device, &device.package(MEND)).await;
        let refused = message(device.ask(ExecutorRequest::RescueSave).await);
        assert!(refused.contains("can be asked"), "{refused}");
        assert!(shown(device.ask(ExecutorRequest::Rescue).await).is_none());
        assert!(!device.path("state/rescue").exists());

        let there = uplink();
        far(&there, &["link", "set", "far0", "down"]);
        let refused = message(device.ask(ExecutorRequest::RescueSave).await);
        assert!(refused.contains("default gateway (IPv4)"), "{refused}");
        far(&there, &["link", "set", "far0", "up"]);
        fs::write(FORWARD, "0").unwrap();
        confirmed(&device, &device.package(MEND)).await;
        profile_file(&device).await;
        let profile = shown(device.ask(ExecutorRequest::Rescue).await).unwrap();
        assert!(profile.held.contains(&"default gateway (IPv4)".to_owned()));
        assert!(profile.source.contains("the change"), "{profile:?}");
        assert!(profile.this_boot && profile.lost.is_empty());
        assert_eq!(
            device.ask(ExecutorRequest::RescueSave).await,
            ExecutorAnswer::Done
        );
    });
}

fn put_back() {
    with_device(async |mut device: Device| {
        let _there = uplink();
        device.start().await;
        cut_without_a_way_back(&mut device).await;
        device.start().await;
        assert!(has_default());
        let outcome = the_outcome(&device).await;
        assert_eq!(outcome.end, End::RollbackIncomplete);
        let detail = &outcome.detail.0;
        assert!(
            detail.contains("put back from the rescue profile: ")
                && detail.contains("route default: was"),
            "{detail}"
        );
        assert!(detail.contains("holds again"), "{detail}");
        assert_eq!(outcome.state_after, None);
        assert!(outcome.not_restored[0].0.contains("the snapshot"));

        // It is still a person's to look at.
        let next = device.sign(&device.package(MEND));
        let mut life = device.execute(next, None).await;
        assert_eq!(refused(&mut life).await, Reason::RollbackIncomplete);
    });
}

fn once() {
    with_device(async |mut device: Device| {
        let _there = uplink();
        device.start().await;
        cut_without_a_way_back(&mut device).await;
        device.start().await;
        device.kill();
        // The power went while it was put back: what was journalled before is all that there is.
        let path = device.path("state/journal");
        let journal = fs::read(&path).unwrap();
        let ends = crashes::ends(&journal);
        let text = |n: usize| String::from_utf8_lossy(&journal[ends[n - 1]..ends[n]]).into_owned();
        let began = (1..ends.len()).find(|n| text(*n).contains("rescue_began"));
        let began = began.unwrap();
        fs::write(&path, &journal[..ends[began]]).unwrap();
        fs::remove_dir_all(device.path("state/outcomes")).unwrap();
        lab::ip("route del default");
        for _ in 0..2 {
            device.start().await;
            let outcome = the_outcome(&device).await;
            assert_eq!(outcome.end, End::RollbackIncomplete);
            let detail = &outcome.detail.0;
            assert!(detail.contains("cut short"), "{detail}");
            assert!(!has_default(), "it is not put back twice");
            device.kill();
        }
    });
}

fn not_needed() {
    with_device(async |mut device: Device| {
        let _there = uplink();
        device.start().await;
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        let change = wants_on_site(&mut life).await;
        profile_file(&device).await;
        device.kill();
        fs::remove_file(device.path("state/snapshots").join(change.as_str())).unwrap();
        lab::ip("route add 198.51.100.0/24 via 192.0.2.1");
        device.start().await;
        let outcome = the_outcome(&device).await;
        assert_eq!(outcome.end, End::RollbackIncomplete);
        let detail = &outcome.detail.0;
        assert!(detail.contains("so it was not needed"), "{detail}");
        assert!(lab::ip("route").contains("198.51.100.0/24"));
    });
}

fn switched_off() {
    with_device(async |mut device: Device| {
        let _there = uplink();
        device.policy(&format!("{POLICY}rescue = false\n"));
        device.start().await;
        confirmed(&device, &device.package(MEND)).await;
        assert!(!device.path("state/rescue").exists());
        // Once a person has kept one, the policy's word holds all the same.
        assert_eq!(
            device.ask(ExecutorRequest::RescueSave).await,
            ExecutorAnswer::Done
        );
        cut_without_a_way_back(&mut device).await;
        device.start().await;
        assert!(!has_default());
        let told = device.outcomes().await;
        let outcome = told.iter().find(|o| o.end == End::RollbackIncomplete);
        let detail = &outcome.unwrap().detail.0;
        assert!(!detail.contains("rescue profile"), "{detail}");
    });
}

fn by_hand() {
    with_device(async |mut device: Device| {
        let _there = uplink();
        lab::ip("rule add from 192.0.2.2 lookup 100 priority 1000");
        lab::ip("neighbour add 192.0.2.77 lladdr 02:00:00:00:00:77 dev wan nud permanent");
        lab::nft(
            "-f -",
            "table inet guard {\n chain in {\n type filter hook input priority 0; policy accept;\n }\n}\n",
        );
        device.start().await;
        assert_eq!(
            device.ask_as(0, &ExecutorRequest::RescueSave),
            ExecutorAnswer::Done
        );
        let good = picture();

        lab::ip("address del 192.0.2.2/24 dev wan");
        lab::ip("rule del priority 1000");
        lab::ip("route add blackhole 203.0.113.0/24");
        lab::ip("link set wan mtu 1400");
        lab::ip("link add spare type veth peer name spare1");
        lab::nft(
            "-f -",
            "table inet guard {\n chain in {\n type filter hook input priority 0; policy drop;\n }\n}\n",
        );
        fs::write(FORWARD, "1").unwrap();
        let profile = shown(device.ask_as(0, &ExecutorRequest::Rescue)).unwrap();
        assert_eq!(profile.lost, ["default gateway (IPv4)"], "{profile:?}");
        let differs = profile.differs.join("\n");
        for object in [
            "address 192.0.2.2/24",
            "route default",
            "203.0.113.0/24",
            "link wan",
            "nft table inet guard",
            "ip_forward",
        ] {
            assert!(differs.contains(object), "{object}: {differs}");
        }
        assert!(
            profile
                .left
                .iter()
                .any(|l| l.contains("link spare") && l.contains("came since"))
        );

        let strange = message(device.ask_as(65_000, &ExecutorRequest::RescueApply));
        assert!(strange.contains("needs root"), "{strange}");
        let end = applied(device.ask_as(0, &ExecutorRequest::RescueApply));
        assert_eq!(
            (end.failed.as_slice(), end.lost.as_slice()),
            ([].as_slice(), [].as_slice()),
            "{end:?}"
        );
        assert!(end.put_back.len() >= 6, "{end:?}");
        lab::ip("link del spare");
        assert_eq!(picture(), good);

        // Nobody touches the network of a change that is open.
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        wants_on_site(&mut life).await;
        for request in [ExecutorRequest::RescueApply, ExecutorRequest::RescueSave] {
            match device.ask(request).await {
                ExecutorAnswer::Refused(refusal) => assert_eq!(refusal.reason, Reason::Busy),
                other => panic!("{other:?}"),
            }
        }
    });
}

/// What people would look at.
fn picture() -> String {
    let addresses = lab::ip("-4 address show");
    let addresses = addresses.lines().filter(|line| !line.contains("spare"));
    format!(
        "{}\n{}{}{}{}{}",
        addresses.collect::<Vec<_>>().join("\n"),
        lab::ip("route show table all type unicast"),
        lab::ip("rule show"),
        lab::ip("neighbour show nud permanent"),
        lab::nft("list ruleset", ""),
        fs::read_to_string(FORWARD).unwrap()
    )
}

fn damaged() {
    with_device(async |mut device: Device| {
        let _there = uplink();
        device.start().await;
        cut_without_a_way_back(&mut device).await;
        let path = device.path("state/rescue");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        device.start().await;
        assert!(!has_default());
        let outcome = the_outcome(&device).await;
        assert_eq!(outcome.end, End::RollbackIncomplete);
        let detail = &outcome.detail.0;
        assert!(
            detail.contains("the rescue profile: it is damaged"),
            "{detail}"
        );
        for request in [ExecutorRequest::Rescue, ExecutorRequest::RescueApply] {
            let said = message(device.ask(request).await);
            assert!(said.contains("it is damaged"), "{said}");
        }
        assert!(!has_default());
        assert_eq!(fs::read(&path).unwrap(), bytes);
    });
}

fn full_disk() {
    with_device(async |mut device: Device| {
        let (state, saved) = (device.path("state"), device.path("saved"));
        crashes::copy(&state, &saved);
        // As much as a change of one parameter asks for, and less once its records have their room.
        let space = Some("size=5m,mode=0700");
        mount(Some("none"), &state, Some("tmpfs"), MsFlags::empty(), space).unwrap();
        crashes::copy(&saved, &state);
        device.policy(POLICY);
        fs::write(state.join("ballast"), vec![1; 800 << 10]).unwrap();
        device.start().await;
        // The first look is over by its time, and found no gateway.
        let none = message(device.ask(ExecutorRequest::RescueSave).await);
        assert!(none.contains("can be asked"), "{none}");
        let _there = uplink();
        let mut package = device.package("change sysctl net.ipv4.ip_forward=1\n");
        package.manifest.operations = serde_json::from_str(
            r#"[{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"1"}}}]"#,
        )
        .unwrap();
        confirmed(&device, &package).await;
        let said = message(device.ask(ExecutorRequest::RescueSave).await);
        assert!(said.contains("bytes free"), "{said}");
        assert!(!state.join("rescue").exists());
        fs::remove_file(state.join("ballast")).unwrap();
    });
}

/// Another boot's name, in this test's own mount namespace.
fn reboot(device: &Device) {
    let other = device.path("boot_id");
    fs::write(&other, "0a0a0a0a-0000-4000-8000-000000000000\n").unwrap();
    let boot_id = "/proc/sys/kernel/random/boot_id";
    mount(Some(&other), boot_id, NONE, MsFlags::MS_BIND, NONE).unwrap();
    fs::write(FORWARD, "0").unwrap();
    lab::ip("route del default");
}

async fn pending(device: &Device) -> bool {
    match device.ask(ExecutorRequest::Status).await {
        ExecutorAnswer::Status(status) => status.pending.is_some(),
        other => panic!("{other:?}"),
    }
}

fn told_after_a_restart() {
    with_device(async |mut device: Device| {
        let _there = uplink();
        device.settles_within(600);
        device.start().await;
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        wants_on_site(&mut life).await;
        device.kill();
        reboot(&device);
        // It answers meanwhile, begins nothing else, and an end of it changes nothing.
        for _ in 0..2 {
            device.start().await;
            assert!(pending(&device).await);
            let told = device.outcomes().await;
            assert!(told.iter().all(|o| o.end == End::Refused), "{told:?}");
            let next = device.sign(&device.package(MEND));
            let mut life = device.execute(next, None).await;
            assert_eq!(refused(&mut life).await, Reason::Busy);
            device.kill();
        }
        device.start().await;
        fs::write("/proc/sys/net/ipv4/conf/wan/forwarding", "1").unwrap();
        lab::ip(&format!("route add {DEFAULT}"));
        device.told().await;
        let outcome = the_outcome(&device).await;
        assert_eq!(outcome.end, End::RolledBack);
        let detail = &outcome.detail.0;
        assert!(
            detail.contains(
                "these differ from before: net.ipv4.conf.wan.forwarding: was '0', is '1'"
            ),
            "{detail}"
        );
        assert!(detail.contains("was not needed"), "{detail}");
        device.kill();
        device.start().await;
        assert_eq!(the_outcome(&device).await, outcome);
    });
}

fn rescued_after_a_restart() {
    with_device(async |mut device: Device| {
        let _there = uplink();
        device.settles_within(1);
        device.start().await;
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        wants_on_site(&mut life).await;
        profile_file(&device).await;
        device.kill();
        reboot(&device);
        device.start().await;
        device.told().await;
        let outcome = the_outcome(&device).await;
        assert_eq!(outcome.end, End::RolledBack);
        let detail = &outcome.detail.0;
        assert!(
            detail.contains("there was no IPv4 default route"),
            "{detail}"
        );
        assert!(
            detail.contains("put back from the rescue profile: ")
                && detail.contains("route default: was"),
            "{detail}"
        );
        assert!(has_default());
    });
}
