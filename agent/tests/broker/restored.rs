//! What was done is undone: whole state equal, as often as wanted, from wherever it stopped.

use aizen_agent::rollback::{Checkpoint, Inverse, restore};

use crate::cases::CASES;
use crate::lab::{
    assert_same, host, in_namespace, ip, nft, operation, operations, picture, router, run, show,
    take,
};

async fn restored(checkpoint: &Checkpoint, inverses: &[Inverse]) -> Checkpoint {
    let restored = restore(&host(), checkpoint, inverses).await;
    assert!(
        restored.not_restored.is_empty(),
        "{:#?}",
        restored.not_restored
    );
    assert!(restored.drift.is_empty(), "{:#?}", restored.drift);
    restored.after.unwrap()
}

/// Looks at everything, whatever the operation.
fn everything() -> Vec<aizen_protocol::package::manifest::Operation> {
    operations(&[
        r#"{"link":{"set":{"dev":"lan","mtu":1280}}}"#,
        r#"{"link":{"set":{"dev":"wan","mtu":1280}}}"#,
        r#"{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"1"}}}"#,
        r#"{"sysctl":{"set":{"key":"net.ipv6.conf.all.forwarding","value":"1"}}}"#,
        r#"{"sysctl":{"set":{"key":"net.ipv6.conf.all.disable_ipv6","value":"1"}}}"#,
        r#"{"sysctl":{"set":{"key":"net.ipv4.tcp_rmem","value":"1 2 3"}}}"#,
        r#"{"nft":{"delete_table":{"family":"ip","name":"any"}}}"#,
    ])
}

#[test]
fn each_operation_is_done_and_undone_and_undoing_twice_is_undoing_once() {
    for case in CASES {
        in_namespace(async || {
            router();
            let grants = [operation(case.operation)];
            let whole = take(&host(), &everything()).await;
            let checkpoint = take(&host(), &grants).await;
            let before = picture();
            let run = run(
                &host(),
                &grants,
                &[(grants[0].clone(), case.content.as_bytes())],
            )
            .await
            .all_done();
            assert_eq!(run.inverses.len(), 1, "{}", case.operation);
            assert!(!run.served.changes.is_empty(), "{}", case.operation);
            assert!(
                show(case.shows.0).contains(case.shows.1),
                "{}: {}",
                case.operation,
                show(case.shows.0)
            );
            assert_ne!(
                take(&host(), &grants).await.digest(),
                checkpoint.digest(),
                "{}",
                case.operation
            );
            for _ in 0..2 {
                let after = restored(&checkpoint, &run.inverses).await;
                assert_same(&checkpoint, &after);
                assert_same(&whole, &take(&host(), &everything()).await);
                assert_eq!(before, picture(), "{}", case.operation);
            }
        });
    }
}

#[test]
fn undoing_what_was_journalled_but_not_done_changes_nothing() {
    for case in CASES {
        in_namespace(async || {
            router();
            let grants = [operation(case.operation)];
            let run = run(
                &host(),
                &grants,
                &[(grants[0].clone(), case.content.as_bytes())],
            )
            .await
            .all_done();
            let inverses = run.inverses;
            // Another router, on which the operation was never done.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            router();
            let checkpoint = take(&host(), &grants).await;
            let before = picture();
            assert_same(&checkpoint, &restored(&checkpoint, &inverses).await);
            assert_eq!(before, picture(), "{}", case.operation);
        });
    }
}

/// A script that takes the router apart.
const SCRIPT: &[&str] = &[
    r#"{"address":{"add":{"address":"198.51.100.2/24","dev":"wan"}}}"#,
    r#"{"route":{"replace":{"dst":"default","via":"198.51.100.1","dev":"wan","metric":100}}}"#,
    r#"{"route":{"replace":{"dst":"default","via":"10.1.0.250","dev":"lan","metric":100}}}"#,
    r#"{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"1"}}}"#,
    r#"{"address":{"delete":{"address":"192.0.2.2/24","dev":"wan"}}}"#,
    r#"{"link":{"set":{"dev":"lan","up":false,"mtu":1000}}}"#,
    r#"{"link":{"set":{"dev":"lan","up":true}}}"#,
    r#"{"route":{"add":{"dst":"default","via":"198.51.100.3","dev":"wan"}}}"#,
    r#"{"sysctl":{"set":{"key":"net.ipv6.conf.wan.disable_ipv6","value":"1"}}}"#,
    r#"{"link":{"set":{"dev":"wan","up":false}}}"#,
];

#[test]
fn a_script_is_undone_from_each_of_its_prefixes_with_the_last_step_done_or_only_journalled() {
    for done in 0..=SCRIPT.len() {
        in_namespace(async move || {
            router();
            let grants = operations(SCRIPT);
            let checkpoint = take(&host(), &grants).await;
            let before = picture();
            let requests: Vec<_> = grants
                .iter()
                .take(done)
                .map(|o| (o.clone(), &b""[..]))
                .collect();
            let mut journalled = Vec::new();
            let run = run(&host(), &grants, &requests).await.all_done();
            journalled.extend(run.inverses);
            assert_same(&checkpoint, &restored(&checkpoint, &journalled).await);
            assert_eq!(before, picture(), "after {done} steps");
        });
    }
}

#[test]
fn a_restore_that_was_cut_short_anywhere_is_finished_by_the_next_one() {
    for cut in [1, 3, 10, 30, 60] {
        in_namespace(async move || {
            router();
            let grants = operations(SCRIPT);
            let checkpoint = take(&host(), &grants).await;
            let requests: Vec<_> = grants.iter().map(|o| (o.clone(), &b""[..])).collect();
            let run = run(&host(), &grants, &requests).await.all_done();
            let world = host();
            let first = restore(&world, &checkpoint, &run.inverses);
            drop(tokio::time::timeout(std::time::Duration::from_millis(cut), first).await);
            assert_same(&checkpoint, &restored(&checkpoint, &run.inverses).await);
        });
    }
}

#[test]
fn a_link_that_goes_down_shows_and_gets_back_every_route_it_loses() {
    in_namespace(async || {
        router();
        let grants = operations(&[r#"{"link":{"set":{"dev":"wan","up":false}}}"#]);
        let checkpoint = take(&host(), &grants).await;
        let run = run(&host(), &grants, &[(grants[0].clone(), b"")])
            .await
            .all_done();
        assert!(!ip("route").contains("default"), "{}", ip("route"));
        let changes: Vec<String> = run
            .served
            .changes
            .iter()
            .map(|c| format!("{} {}", c.object, c.diff))
            .collect();
        assert!(
            changes[0].contains("- wan up mtu 1500\n+ wan down mtu 1500"),
            "{changes:#?}"
        );
        assert!(
            changes.iter().any(|c| c
                .contains("- default via 192.0.2.1 dev wan proto dhcp src 192.0.2.2 metric 100")),
            "{changes:#?}"
        );
        assert!(
            changes.iter().any(|c| c.starts_with("default6")),
            "{changes:#?}"
        );
        restored(&checkpoint, &run.inverses).await;
        assert!(
            ip("route")
                .contains("default via 192.0.2.1 dev wan proto dhcp src 192.0.2.2 metric 100"),
            "{}",
            ip("route")
        );
    });
}

#[test]
fn a_moved_default_route_comes_back_with_its_metric_protocol_and_source() {
    in_namespace(async || {
        router();
        let grants = operations(&[
            r#"{"route":{"replace":{"dst":"default","via":"10.1.0.66","dev":"lan","metric":100}}}"#,
        ]);
        let checkpoint = take(&host(), &grants).await;
        let run = run(&host(), &grants, &[(grants[0].clone(), b"")])
            .await
            .all_done();
        assert!(ip("route").contains("default via 10.1.0.66 dev lan proto static metric 100"));
        let change = &run.served.changes[0];
        assert_eq!(change.object.0, "default metric 100");
        assert_eq!(
            (change.owner.as_str(), change.lasts),
            ("dhcp", aizen_protocol::effect::Lasts::UntilRenewal)
        );
        assert_eq!(
            change.inverse.0,
            "route replace default via 192.0.2.1 dev wan proto dhcp src 192.0.2.2 metric 100"
        );
        restored(&checkpoint, &run.inverses).await;
        assert!(
            ip("route")
                .contains("default via 192.0.2.1 dev wan proto dhcp src 192.0.2.2 metric 100")
        );
    });
}

#[test]
fn what_somebody_else_changed_meanwhile_is_left_alone_and_named() {
    in_namespace(async || {
        router();
        let grants = operations(&[
            r#"{"route":{"replace":{"dst":"default","via":"192.0.2.9","dev":"wan","metric":100}}}"#,
        ]);
        let checkpoint = take(&host(), &grants).await;
        let run = run(&host(), &grants, &[(grants[0].clone(), b"")])
            .await
            .all_done();
        ip("route add 203.0.113.0/24 via 10.1.0.3 dev lan");
        ip("route del 10.8.0.0/16");
        ip("address add 10.7.0.1/24 dev lan");
        let result = restore(&host(), &checkpoint, &run.inverses).await;
        assert!(result.not_restored.is_empty(), "{:?}", result.not_restored);
        let drift: Vec<&str> = result.drift.iter().map(|t| t.0.as_str()).collect();
        for name in [
            "route 203.0.113.0/24",
            "route 10.8.0.0/16",
            "address 10.7.0.1/24 dev lan",
        ] {
            assert!(
                drift
                    .iter()
                    .any(|d| d.starts_with(name) && d.contains("left alone")),
                "{name}: {drift:#?}"
            );
        }
        assert!(ip("route").contains("203.0.113.0/24") && !ip("route").contains("10.8.0.0/16"));
        assert!(ip("route").contains("default via 192.0.2.1 dev wan proto dhcp"));
    });
}

#[test]
fn an_object_that_both_changed_is_put_back_and_the_other_hand_is_named() {
    in_namespace(async || {
        router();
        let grants = operations(&[
            r#"{"route":{"replace":{"dst":"default","via":"192.0.2.9","dev":"wan","metric":100}}}"#,
        ]);
        let checkpoint = take(&host(), &grants).await;
        let run = run(&host(), &grants, &[(grants[0].clone(), b"")])
            .await
            .all_done();
        ip("route replace default via 192.0.2.77 dev wan metric 100");
        let result = restore(&host(), &checkpoint, &run.inverses).await;
        assert!(result.not_restored.is_empty());
        assert!(
            result
                .drift
                .iter()
                .any(|d| d.0.contains("somebody else changed")),
            "{:?}",
            result.drift
        );
        assert_same(&checkpoint, &result.after.unwrap());
    });
}

#[test]
fn what_a_stranger_changes_meanwhile_stays_whatever_the_operation() {
    for case in CASES {
        in_namespace(async || {
            router();
            ip("link add dmz address 02:00:00:00:00:05 type veth peer name far2");
            ip("link set dmz up");
            ip("link set far2 up");
            let grants = [operation(case.operation)];
            let checkpoint = take(&host(), &grants).await;
            let before = picture();
            let run = run(
                &host(),
                &grants,
                &[(grants[0].clone(), case.content.as_bytes())],
            )
            .await
            .all_done();
            ip("route add 203.0.113.0/24 dev dmz");
            ip("rule add from 198.18.0.0/16 lookup 77 priority 5000");
            ip("neighbour add 203.0.113.9 lladdr 02:00:00:00:00:99 dev dmz nud permanent");
            nft("-f -", "table ip stranger { }\n");
            for _ in 0..2 {
                let result = restore(&host(), &checkpoint, &run.inverses).await;
                assert!(
                    result.not_restored.is_empty(),
                    "{}: {:#?}",
                    case.operation,
                    result.not_restored
                );
                let told = |word: &str| result.drift.iter().any(|d| d.0.contains(word));
                let theirs = if case.operation.contains("nft") {
                    told("nft table ip stranger")
                } else {
                    told("route 203.0.113.0/24")
                        && told("rule 5000 from 198.18.0.0/16 lookup 77: was absent, is there")
                        && told("neighbour 203.0.113.9 dev dmz")
                };
                assert!(theirs, "{}: {:#?}", case.operation, result.drift);
            }
            for (look, stays) in [
                ("route", "203.0.113.0/24 dev dmz"),
                ("rule", "5000:\tfrom 198.18.0.0/16 lookup 77"),
                ("neighbour show nud permanent", "203.0.113.9 dev dmz"),
                ("nft list tables", "table ip stranger"),
            ] {
                assert!(
                    show(look).contains(stays),
                    "{}: {}",
                    case.operation,
                    show(look)
                );
            }
            ip("rule del priority 5000");
            ip("link del dmz");
            nft("delete table ip stranger", "");
            let without = |text: String| {
                let theirs = |line: &&str| !line.contains("dmz") && !line.contains("far2");
                text.lines()
                    .filter(theirs)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(without(before), without(picture()), "{}", case.operation);
        });
    }
}

#[test]
fn a_table_that_both_changed_is_put_back_and_the_other_hand_is_named() {
    in_namespace(async || {
        router();
        let text = "table inet guard {\n\tchain in {\n\t\ttcp dport 23 drop\n\t}\n}\n";
        let grants = operations(&[r#"{"nft":{"replace_table":{"family":"inet","name":"guard"}}}"#]);
        let checkpoint = take(&host(), &grants).await;
        let before = picture();
        let run = run(&host(), &grants, &[(grants[0].clone(), text.as_bytes())])
            .await
            .all_done();
        nft("add rule inet guard in tcp dport 24 drop", "");
        let result = restore(&host(), &checkpoint, &run.inverses).await;
        assert!(result.not_restored.is_empty());
        assert!(
            result
                .drift
                .iter()
                .any(|d| d.0.contains("somebody else changed")),
            "{:?}",
            result.drift
        );
        assert_eq!(before, picture());
    });
}

#[test]
fn a_set_of_twenty_thousand_elements_is_replaced_and_put_back() {
    in_namespace(async || {
        router();
        let table = |first: u8| {
            let elements: Vec<String> = (0..20_000)
                .map(|n| format!("{first}.1.{}.{}", n / 256, n % 256))
                .collect();
            format!(
                "table inet big {{\n\tset s {{\n\t\ttype ipv4_addr\n\t\telements = {{ {} }}\n\t}}\n}}\n",
                elements.join(", ")
            )
        };
        nft("-f -", &table(11));
        let grants = operations(&[r#"{"nft":{"replace_table":{"family":"inet","name":"big"}}}"#]);
        let checkpoint = take(&host(), &grants).await;
        let before = picture();
        let run = run(
            &host(),
            &grants,
            &[(grants[0].clone(), table(12).as_bytes())],
        )
        .await
        .all_done();
        let journalled = serde_json::to_vec(&run.inverses[0]).unwrap().len();
        assert!(
            journalled < aizen_agent::rollback::journal::RECORD / 2,
            "{journalled}"
        );
        assert!(nft("list table inet big", "").contains("12.1.77.7"));
        assert_same(&checkpoint, &restored(&checkpoint, &run.inverses).await);
        assert_eq!(before, picture());
    });
}

#[test]
fn thousands_of_lost_routes_are_told_in_a_few_lines_and_all_come_back() {
    in_namespace(async || {
        router();
        let batch: String = (0..5000)
            .map(|n| {
                format!(
                    "route add 11.{}.{}.0/24 via 10.1.0.9 dev lan\n",
                    n / 256,
                    n % 256
                )
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("batch");
        std::fs::write(&file, batch).unwrap();
        ip(&format!("-batch {}", file.display()));
        let grants = operations(&[r#"{"link":{"set":{"dev":"lan","up":false}}}"#]);
        let checkpoint = take(&host(), &grants).await;
        let run = run(&host(), &grants, &[(grants[0].clone(), b"")])
            .await
            .all_done();
        assert!(!ip("route").contains("11.0.7.0/24"));
        let changes = &run.served.changes;
        assert!(changes.len() < 70, "{}", changes.len());
        assert!(
            changes
                .last()
                .unwrap()
                .diff
                .0
                .contains("more objects moved; SHA-256 of all: ")
        );
        assert_same(&checkpoint, &restored(&checkpoint, &run.inverses).await);
    });
}

#[test]
fn what_can_not_be_put_back_is_named_with_the_reason() {
    in_namespace(async || {
        router();
        let grants = operations(&[r#"{"link":{"set":{"dev":"lan","mtu":1400}}}"#]);
        let checkpoint = take(&host(), &grants).await;
        let run = run(&host(), &grants, &[(grants[0].clone(), b"")])
            .await
            .all_done();
        ip("link delete lan");
        let result = restore(&host(), &checkpoint, &run.inverses).await;
        assert!(
            result
                .not_restored
                .iter()
                .any(|t| t.0.starts_with("link lan: was 'lan up mtu 1500")),
            "{:#?}",
            result.not_restored
        );
    });
}

#[test]
fn a_checkpoint_and_an_inverse_survive_being_written_down() {
    in_namespace(async || {
        router();
        let grants = operations(SCRIPT);
        let checkpoint = take(&host(), &grants).await;
        let text = serde_json::to_vec(&checkpoint).unwrap();
        let read: Checkpoint = serde_json::from_slice(&text).unwrap();
        assert_eq!(read, checkpoint);
        let requests: Vec<_> = grants.iter().map(|o| (o.clone(), &b""[..])).collect();
        for inverse in run(&host(), &grants, &requests).await.all_done().inverses {
            let text = serde_json::to_vec(&inverse).unwrap();
            assert_eq!(serde_json::from_slice::<Inverse>(&text).unwrap(), inverse);
        }
    });
}
