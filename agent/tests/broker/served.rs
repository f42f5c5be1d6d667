//! The door: what is not granted is not done, what can't be undone is not begun, and no guest can hold it shut.

use std::io;
use std::os::fd::AsRawFd as _;

use aizen_agent::broker::{Answer, pair, serve};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::cases::CASES;
use crate::lab::{
    ask, ask_raw, assert_same, host, in_namespace, ip, operation, operations, picture, router, run,
    run_with, take,
};

#[test]
fn an_operation_that_is_not_granted_is_refused_and_changes_nothing() {
    for case in CASES {
        in_namespace(async || {
            router();
            let before = picture();
            let grants = operations(&[r#"{"route":{"add":{"dst":"203.0.113.0/24","dev":"lan"}}}"#]);
            let run = run(
                &host(),
                &grants,
                &[(operation(case.operation), case.content.as_bytes())],
            )
            .await;
            let [Answer::Refused(why)] = run.answers.as_slice() else {
                panic!("{:?}", run.answers)
            };
            assert!(
                why.contains("not granted; the manifest grants 'route add 203.0.113.0/24 dev lan'"),
                "{why}"
            );
            assert!(run.inverses.is_empty() && run.served.changes.is_empty());
            assert_eq!(run.served.denied.len(), 1);
            assert_eq!(before, picture());
        });
    }
}

#[test]
fn a_grant_is_exact_and_written_in_any_way() {
    in_namespace(async || {
        router();
        let grants = operations(&[
            r#"{"route":{"replace":{"dst":"default","via":"192.0.2.9","dev":"wan","metric":100}}}"#,
        ]);
        for almost in [
            r#"{"route":{"replace":{"dst":"default","via":"192.0.2.9","dev":"wan"}}}"#,
            r#"{"route":{"replace":{"dst":"default","via":"192.0.2.9","metric":100}}}"#,
            r#"{"route":{"replace":{"dst":"default","via":"192.0.2.8","dev":"wan","metric":100}}}"#,
            r#"{"route":{"add":{"dst":"default","via":"192.0.2.9","dev":"wan","metric":100}}}"#,
            r#"{"route":{"replace":{"dst":"default","via":"192.0.2.9","dev":"wan","metric":100,"table":100}}}"#,
        ] {
            let run = run(&host(), &grants, &[(operation(almost), b"")]).await;
            assert!(
                matches!(run.answers[0], Answer::Refused(_)),
                "{almost}: {:?}",
                run.answers
            );
        }
        let same = r#"{"route":{"replace":{"dst":"0.0.0.0/0","via":"192.0.2.9","dev":"wan","metric":100,"table":254}}}"#;
        run(&host(), &grants, &[(operation(same), b"")])
            .await
            .all_done();
    });
}

#[test]
fn a_journal_that_fails_means_that_nothing_is_done() {
    for case in CASES {
        in_namespace(async || {
            router();
            let before = picture();
            let grants = [operation(case.operation)];
            let full = |_: &aizen_agent::rollback::Inverse| {
                Err(io::Error::from_raw_os_error(nix::libc::ENOSPC))
            };
            let run = run_with(
                &host(),
                &grants,
                &[(grants[0].clone(), case.content.as_bytes())],
                full,
            )
            .await;
            let [Answer::Failed(why)] = run.answers.as_slice() else {
                panic!("{:?}", run.answers)
            };
            assert!(why.contains("nothing was done, because the way back could not be written down: No space left on device"), "{why}");
            assert!(run.served.changes.is_empty());
            assert_eq!(before, picture());
        });
    }
}

#[test]
fn the_way_back_is_written_down_before_the_act() {
    in_namespace(async || {
        router();
        let grants = [operation(CASES[0].operation)];
        let look = |_: &aizen_agent::rollback::Inverse| {
            assert!(
                ip("route").contains("default via 192.0.2.1 dev wan"),
                "done before it was journalled"
            );
            Ok(())
        };
        run_with(&host(), &grants, &[(grants[0].clone(), b"")], look)
            .await
            .all_done();
        assert!(ip("route").contains("default via 192.0.2.9 dev wan"));
    });
}

/// What is asked for, and what the refusal says.
const FAILURES: &[(&str, &str)] = &[
    (
        r#"{"route":{"add":{"dst":"10.9.0.0/16","via":"10.1.0.1"}}}"#,
        "route add 10.9.0.0/16: it exists already: 10.9.0.0/16 via 10.1.0.9 dev lan proto static",
    ),
    (
        r#"{"route":{"delete":{"dst":"default"}}}"#,
        "route delete default: no such route; there is 'default via 192.0.2.1 dev wan proto dhcp src 192.0.2.2 metric 100' and",
    ),
    (
        r#"{"route":{"add":{"dst":"10.3.0.0/16","via":"172.31.0.1","dev":"lan"}}}"#,
        "Nexthop has invalid gateway",
    ),
    (
        r#"{"route":{"add":{"dst":"10.3.0.0/16","via":"172.31.0.1"}}}"#,
        "route 10.3.0.0/16: the next hop 172.31.0.1 is not on the network of any interface",
    ),
    (
        r#"{"rule":{"add":{"priority":1000,"from":"10.1.0.0/24","table":100}}}"#,
        "rule add 1000 from 10.1.0.0/24 lookup 100: it exists already",
    ),
    (
        r#"{"rule":{"delete":{"priority":1000,"from":"10.1.0.0/24","table":101}}}"#,
        "no such rule; there is 'rule 1000 from 10.1.0.0/24 lookup 100' and",
    ),
    (
        r#"{"neighbour":{"delete":{"address":"10.1.0.77","dev":"nope"}}}"#,
        "cannot find device \"nope\"",
    ),
    (
        r#"{"nft":{"delete_table":{"family":"inet","name":"none"}}}"#,
        "nft table inet none: no such table",
    ),
    (
        r#"{"nft":{"replace_table":{"family":"inet","name":"guard"}}}"#,
        "the text must be 'table inet guard { … }' and nothing else",
    ),
    (
        r#"{"route":{"add":{"dst":"10.3.0.0/16","dev":"nope"}}}"#,
        "cannot find device \"nope\"",
    ),
    (
        r#"{"address":{"add":{"address":"10.1.0.1/24","dev":"lan"}}}"#,
        "address add 10.1.0.1/24 dev lan: it exists already",
    ),
    (
        r#"{"address":{"delete":{"address":"10.1.0.9/24","dev":"lan"}}}"#,
        "address delete 10.1.0.9/24 dev lan: no such address",
    ),
    (
        r#"{"link":{"set":{"dev":"nope","up":true}}}"#,
        "cannot find device \"nope\"",
    ),
    (
        r#"{"sysctl":{"set":{"key":"net.ipv4.nope","value":"1"}}}"#,
        "net.ipv4.nope: no such kernel parameter",
    ),
    (
        r#"{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"many"}}}"#,
        "net.ipv4.ip_forward: Invalid argument",
    ),
    (
        r#"{"file":{"delete":"/nonexistent/aizen"}}"#,
        "file delete /nonexistent/aizen: no such file",
    ),
    (
        r#"{"file":{"write":"/nonexistent/aizen"}}"#,
        "file write /nonexistent/aizen: its folder does not exist",
    ),
];

#[test]
fn a_failure_says_what_to_what_and_why() {
    in_namespace(async || {
        router();
        for (operation_text, says) in FAILURES {
            let before = picture();
            let grants = [operation(operation_text)];
            let run = run(&host(), &grants, &[(grants[0].clone(), b"")]).await;
            let [Answer::Failed(why)] = run.answers.as_slice() else {
                panic!("{operation_text}: {:?}", run.answers)
            };
            assert!(why.contains(says), "{operation_text}: {why}");
            assert_eq!(before, picture(), "{operation_text}");
        }
    });
}

#[test]
fn what_is_so_already_is_not_done_again() {
    in_namespace(async || {
        router();
        for text in [
            r#"{"route":{"replace":{"dst":"10.8.0.0/16","dev":"lan"}}}"#,
            r#"{"link":{"set":{"dev":"lan","up":true,"mtu":1500}}}"#,
            r#"{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"0"}}}"#,
        ] {
            let grants = [operation(text)];
            let run = run(&host(), &grants, &[(grants[0].clone(), b"")])
                .await
                .all_done();
            assert!(
                run.inverses.is_empty() && run.served.changes.is_empty(),
                "{text}: {:?}",
                run.served
            );
        }
    });
}

#[test]
fn two_changes_at_once_are_both_done_one_after_the_other() {
    in_namespace(async || {
        router();
        let texts: Vec<String> = (0..12)
            .map(|n| {
                format!(
                    r#"{{"route":{{"add":{{"dst":"10.{}.0.0/16","dev":"lan"}}}}}}"#,
                    100 + n
                )
            })
            .collect();
        let grants: Vec<_> = texts.iter().map(|t| operation(t)).collect();
        let checkpoint = take(&host(), &grants).await;
        let (ours, theirs) = pair().unwrap();
        let asked = grants.clone();
        let clients = tokio::task::spawn_blocking(move || {
            let answers = std::sync::Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for operation in &asked {
                    scope.spawn(|| {
                        let answer = ask(&theirs, operation, b"");
                        answers.lock().unwrap().push(answer);
                    });
                }
            });
            answers.into_inner().unwrap()
        });
        let (mut inverses, mut acting) = (Vec::new(), Vec::new());
        let mut before_act = |inverse: &aizen_agent::rollback::Inverse| {
            inverses.push(inverse.clone());
            Ok(())
        };
        let served = serve(&host(), &grants, ours, &mut before_act, &mut |change| {
            acting.push(change.object.0.clone())
        })
        .await;
        assert!(
            clients
                .await
                .unwrap()
                .iter()
                .all(|a| matches!(a, Answer::Done(_)))
        );
        assert_eq!(served.changes.len(), 12);
        assert_eq!(acting.len(), 12);
        let back = aizen_agent::rollback::restore(&host(), &checkpoint, &inverses).await;
        assert_same(&checkpoint, &back.after.unwrap());
    });
}

#[test]
fn garbage_at_the_door_is_survived_and_the_next_request_is_served() {
    in_namespace(async || {
        router();
        let grants = [operation(CASES[0].operation)];
        let (ours, theirs) = pair().unwrap();
        let asked = grants[0].clone();
        let client = tokio::task::spawn_blocking(move || {
            let door = theirs.as_raw_fd();
            let bare = |bytes: &[u8]| {
                sendmsg::<()>(
                    door,
                    &[io::IoSlice::new(bytes)],
                    &[],
                    MsgFlags::empty(),
                    None,
                )
                .unwrap()
            };
            bare(b"x");
            bare(&[0; 4096]);
            // Descriptors that are no stream socket, several at once, and one that nobody ever writes to.
            let file = std::fs::File::open("/dev/zero").unwrap();
            let two = [file.as_raw_fd(), file.as_raw_fd()];
            for fds in [&two[..1], &two[..]] {
                sendmsg::<()>(
                    door,
                    &[io::IoSlice::new(b"x")],
                    &[ControlMessage::ScmRights(fds)],
                    MsgFlags::empty(),
                    None,
                )
                .unwrap();
            }
            let (silent, other) = std::os::unix::net::UnixStream::pair().unwrap();
            sendmsg::<()>(
                door,
                &[io::IoSlice::new(b"x")],
                &[ControlMessage::ScmRights(&[other.as_raw_fd()])],
                MsgFlags::empty(),
                None,
            )
            .unwrap();
            drop(other);
            for garbage in [
                &b"\n"[..],
                b"{}\n",
                b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
                &[0xff; 70_000],
            ] {
                let answer = ask_raw(&theirs, garbage).unwrap_or_default();
                assert!(
                    answer.starts_with(b"{\"refused\"") || answer.is_empty(),
                    "{}",
                    String::from_utf8_lossy(&answer)
                );
            }
            let answer = ask(&theirs, &asked, b"");
            drop(silent);
            answer
        });
        let served = serve(&host(), &grants, ours, &mut |_| Ok(()), &mut |_| {}).await;
        assert!(matches!(client.await.unwrap(), Answer::Done(_)));
        assert_eq!(served.changes.len(), 1);
    });
}
