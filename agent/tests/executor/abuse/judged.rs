//! Attempts that are judged by more than what their script says.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest};
use aizen_protocol::effect::ScriptEnd;
use aizen_protocol::outcome::End;
use aizen_protocol::package::Package;

use super::attempt::{attempted, mark, next_one_runs};
use crate::device::{Device, MEND, ended, with_device};
pub(super) fn abstract_sockets() {
    let name = format!("aizen-abuse-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let script = format!(
        "perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) or exit 1; connect(S, pack_sockaddr_un(\"\\0{name}\")) or exit 1' && echo reached\nexit 7\n"
    );
    with_device(async |mut device: Device| {
        device.policy(
            "allow_changes = true\nmin_isolation = 1\nrehearsed_only = false\nread = [\"/proc/net/\"]\n",
        );
        // In the network namespace that the script sees.
        let _listening = UnixListener::bind_addr(&address).unwrap();
        device.start().await;
        let mut package = device.package(&script);
        package.manifest.read = vec!["/proc/net/dev".into()];
        let mut life = device.execute(device.sign(&package), None).await;
        let (local, _) = ended(&mut life).await;
        let scoped = local
            .isolation
            .layers
            .iter()
            .any(|layer| layer.name == "landlock_scopes" && layer.enforced);
        let run = local.script.unwrap();
        assert_eq!(run.end, ScriptEnd::Exited(7), "{run:?}");
        if scoped {
            assert!(!run.output.0.contains("reached"), "{run:?}");
        } else {
            eprintln!(
                "not tried: this kernel has no Landlock scopes (Linux 6.12), and the report says so"
            );
        }
        next_one_runs(&device).await;
    });
}

pub(super) fn kills_everything() {
    let mark = mark();
    attempted(
        &format!("sleep {mark} & kill -9 -1; kill -9 1; kill -9 $$; exit 0\n"),
        |_| {},
        |local, _| {
            let end = local.script.as_ref().map(|run| run.end);
            assert_eq!(end, Some(ScriptEnd::Signalled(9)), "{local:?}");
        },
    );
}

pub(super) fn stays() {
    let mark = mark();
    let script = format!(
        "trap '' TERM HUP INT; (setsid sh -c 'trap \"\" TERM HUP; sleep {mark}; sleep {mark}' &); sleep {mark}; sleep {mark}\n"
    );
    let short = |package: &mut Package| package.manifest.timeout_s = 2;
    attempted(&script, short, |local, _| {
        let run = local.script.as_ref().unwrap();
        assert_eq!(run.end, ScriptEnd::TimedOut, "{run:?}");
        assert!(run.leftover_processes >= 2, "{run:?}");
    });
}

pub(super) fn outlives() {
    let mark = mark();
    attempted(
        &format!("setsid sleep {mark} & sleep {mark} & exit 7\n"),
        |_| {},
        |local, _| {
            let run = local.script.as_ref().unwrap();
            assert_eq!(
                (run.end, run.leftover_processes),
                (ScriptEnd::Exited(7), 2),
                "{run:?}"
            );
        },
    );
}

pub(super) fn fork_bomb() {
    let bound = |package: &mut Package| {
        package.manifest.limits.processes = 24;
        package.manifest.timeout_s = 2;
    };
    let mark = mark();
    attempted(
        &format!("f() {{ f | f & }}; f; sleep {mark}\n"),
        bound,
        |local, output| {
            let run = local.script.as_ref().unwrap();
            assert!(run.leftover_processes <= 25, "{run:?}");
            assert!(
                output.contains("ork"),
                "the shell says that it can't fork: {output}"
            );
            assert!(Command::new("true").status().unwrap().success());
        },
    );
}

pub(super) fn memory_hog() {
    let bound = |package: &mut Package| {
        package.manifest.limits.memory_mib = 32;
        package.manifest.limits.scratch_mib = 2;
    };
    // The scratch counts as memory as well, so it comes first.
    let script = "head -c 100000000 /dev/zero > /tmp/full 2>/dev/null && echo ESCAPED: bytes; \
                  i=0; while [ $i -lt 5000 ] && true > /tmp/n$i; do i=$((i+1)); done 2>/dev/null; [ $i -lt 5000 ] || echo ESCAPED: names; \
                  rm -f /tmp/full; truncate -s 1T /tmp/sparse && head -c 10000000 /dev/zero >> /tmp/sparse && echo ESCAPED: sparse; \
                  echo bounded; perl -e 'my $x = \"x\" x 400_000_000; print \"ESCAPED: memory\\n\"'; exit 7\n";
    attempted(script, bound, |local, output| {
        assert!(
            output.contains("bounded") && !output.contains("ESCAPED"),
            "{output}"
        );
        let end = local.script.as_ref().unwrap().end;
        assert!(
            matches!(end, ScriptEnd::Exited(7) | ScriptEnd::Signalled(9)),
            "{end:?}"
        );
    });
}

pub(super) fn spins() {
    with_device(async |mut device: Device| {
        device.start().await;
        let mut package = device.package(
            "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; while :; do :; done\n",
        );
        package.manifest.timeout_s = 3;
        let mut life = device.execute(device.sign(&package), None).await;
        // As long as it runs, everybody is answered.
        let mut answered = 0;
        let over = ended(&mut life);
        let mut over = std::pin::pin!(over);
        let (local, _) = loop {
            tokio::select! {
                end = &mut over => break end,
                answer = device.ask(ExecutorRequest::Status) => {
                    assert!(matches!(answer, ExecutorAnswer::Status(_)), "{answer:?}");
                    answered += 1;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert!(answered >= 3, "{answered} answers");
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        next_one_runs(&device).await;
    });
}

pub(super) fn floods() {
    let script = "printf '\\033]0;owned\\007\\033[2J\\r\\0first'; head -c 200000000 /dev/zero | tr '\\0' 'y'; \
                  head -c 20000000 /dev/zero >&2; printf '\\377\\376last'; exit 7\n";
    let long = |package: &mut Package| {
        package.manifest.limits.cpu_s = 60;
        package.manifest.timeout_s = 60;
    };
    attempted(script, long, |local, output| {
        let run = local.script.as_ref().unwrap();
        assert_eq!(run.end, ScriptEnd::Exited(7), "{:?}", run.end);
        assert!(run.output_bytes > 220_000_000, "{}", run.output_bytes);
        assert!(output.contains("first") && output.contains("last"));
        let hostile = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!output.contains(hostile), "a terminal would obey it");
        // Each zero byte is five characters when it is made visible.
        assert!(
            output.len() < (64 << 10) * 6,
            "{} bytes are kept",
            output.len()
        );
    });
}

pub(super) fn dumps() {
    attempted(
        "ulimit -c unlimited; cd /tmp; sh -c 'kill -SEGV $$'; ls /tmp | grep core && echo ESCAPED; kill -ABRT $$\n",
        |_| {},
        |local, output| {
            assert!(!output.contains("ESCAPED"), "{output}");
            assert_eq!(local.script.as_ref().unwrap().end, ScriptEnd::Signalled(6));
        },
    );
}

/// The change itself is good each time.
pub(super) fn ends_badly() {
    let ends = [
        ("exit 1", ScriptEnd::Exited(1)),
        ("exit 255", ScriptEnd::Exited(255)),
        ("kill -TERM $$", ScriptEnd::Signalled(15)),
        ("kill -KILL $$", ScriptEnd::Signalled(9)),
        ("exec /nowhere", ScriptEnd::Exited(127)),
    ];
    for (words, wanted) in ends {
        attempted(
            &format!("{MEND}{words}\n"),
            |_| {},
            |local, _| {
                assert_eq!(local.script.as_ref().unwrap().end, wanted, "{words}");
                assert_eq!(local.state_before, local.state_after, "{words}");
            },
        );
    }
}
