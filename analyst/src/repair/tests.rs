//! Every proposal is well-formed, and the scripts do in a real shell what they promise.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use aizen_protocol::limit;
use aizen_protocol::package::manifest::{Class, Operation, Probe};
use aizen_protocol::private::Name;
use aizen_protocol::proposal::Proposal;

use super::interface;
use crate::case::Case;
use crate::fixture::{self, RESOLVER, SECOND, WAN, faults, healthy, kill_resolver, only, verdict};

fn proposals() -> Vec<(&'static str, Proposal)> {
    let every = faults().into_iter().chain(fixture::machine::faults());
    let all = every.filter_map(|(cause, rounds)| {
        let verdict = verdict(&rounds);
        Some((cause, only(&verdict).proposal.clone()?))
    });
    all.collect()
}

/// Those for the faults from the cable to the route as well.
fn all_proposals() -> Vec<(&'static str, Proposal)> {
    let lower = fixture::lower::faults().into_iter();
    let lower = lower.filter_map(|(cause, rounds, _)| {
        let verdict = verdict(&rounds);
        Some((cause, only(&verdict).proposal.clone()?))
    });
    proposals().into_iter().chain(lower).collect()
}

#[test]
fn the_safe_repairs_from_the_cable_to_the_route_are_proposed() {
    let causes: Vec<&str> = all_proposals().iter().map(|(cause, _)| *cause).collect();
    assert_eq!(
        causes[proposals().len()..],
        [
            "link_mtu_too_small",
            "ra_ignored",
            "neighbour_table_full",
            "default_route_conflict",
            "wrong_gateway",
            "blackhole_route",
            "reverse_path_drop",
        ]
    );
}

/// Variables that a text refers to: `$IP_…`, `$NAME_…`.
fn references(text: &str) -> Vec<String> {
    let name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split('$')
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| name(*c)).collect::<String>())
        .filter(|variable| variable.contains('_'))
        .collect()
}

#[test]
fn the_safe_repairs_are_proposed_and_the_others_are_left_to_people() {
    let causes: Vec<&str> = proposals().iter().map(|(cause, _)| *cause).collect();
    assert_eq!(
        causes,
        [
            "resolver_dead",
            "resolver_slow",
            "no_default_route",
            "link_admin_down",
            "mtu_black_hole",
            "forwarding_off",
            "conntrack_full",
            "syn_flood",
            "listen_overflow",
            "vpn_mtu"
        ]
    );
}

#[test]
fn every_proposal_is_bounded_binds_what_it_names_and_asks_for_the_uplink() {
    for (cause, proposal) in all_proposals() {
        let manifest = &proposal.manifest;
        assert!(manifest.is_bounded(), "{cause}");
        assert_eq!(
            (manifest.class, manifest.min_isolation),
            (Class::Repair, 2),
            "{cause}"
        );
        let asked = proposal.script.matches("change ").count();
        assert_eq!(manifest.operations.len(), asked, "{cause}");
        assert!(
            manifest.confirm.probes.contains(&Probe::Uplink(true)),
            "{cause}"
        );
        assert!(manifest.confirm.probes.len() >= 2, "{cause}");
        assert!(proposal.intent.0.len() <= limit::SENTENCE, "{cause}");
        assert!(proposal.script.len() <= limit::SCRIPT, "{cause}");
        let bound: Vec<String> = proposal
            .bindings
            .iter()
            .map(|binding| binding.variable())
            .collect();
        let granted = serde_json::to_string(manifest).unwrap();
        let mut used = references(&granted);
        used.extend(references(&proposal.script));
        assert!(
            used.iter().all(|variable| bound.contains(variable)),
            "{cause}: {used:?} {bound:?}"
        );
        assert!(
            bound.iter().all(|variable| used.contains(variable)),
            "{cause}: {used:?} {bound:?}"
        );
    }
}

#[test]
fn no_script_and_no_manifest_holds_a_private_value() {
    for (cause, proposal) in all_proposals() {
        for text in [
            proposal.script.clone(),
            serde_json::to_string(&proposal.manifest).unwrap(),
        ] {
            for word in text.split(|c: char| c.is_whitespace() || "\"',;()".contains(c)) {
                assert!(word.parse::<std::net::IpAddr>().is_err(), "{cause}: {word}");
                assert!(
                    word.parse::<aizen_protocol::private::Prefix>().is_err(),
                    "{cause}: {word}"
                );
            }
            assert!(!text.contains(fixture::NAME), "{cause}");
        }
    }
}

#[test]
fn every_script_is_valid_for_a_posix_shell() {
    for (cause, proposal) in all_proposals() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        fs::write(&script, &proposal.script).unwrap();
        for shell in ["/bin/sh", "/bin/bash"] {
            if !Path::new(shell).exists() {
                continue;
            }
            let output = Command::new(shell).arg("-n").arg(&script).output().unwrap();
            assert!(output.status.success(), "{cause}: {output:?}");
            assert!(output.stderr.is_empty(), "{cause}: {output:?}");
        }
    }
}

#[test]
fn an_interface_whose_name_a_shell_could_read_as_syntax_gets_no_proposal() {
    for name in ["w;reboot", "$(id)", "-wan", "a b", "`x`", "wän", ""] {
        let mut evidence = healthy(1);
        evidence.link(WAN).name = name.into();
        let case = Case::new(evidence.records());
        assert_eq!(interface(&case.view(0).unwrap(), WAN), None, "{name}");
    }
    let case = Case::new(healthy(1).records());
    assert_eq!(interface(&case.view(0).unwrap(), WAN), Some("wan"));
}

/// The `change` of these tests: logs its arguments and writes files.
const CHANGE: &str = "#!/bin/sh\n\
    printf '%s\\n' \"$*\" >>\"$LOG\"\n\
    if [ \"$1 $2\" = 'file write' ]; then exec /bin/cat >\"$3\"; fi\n";
/// One whose every operation is refused.
const REFUSING: &str = "#!/bin/sh\n/bin/cat >/dev/null\nexit 4\n";

/// Runs a script with nothing but `change` on its path, and its file in `folder`.
fn run(shell: &str, folder: &Path, proposal: &Proposal, change: &str) -> Output {
    let program = folder.join("change");
    fs::write(&program, change).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.join("resolv.conf");
    let script = folder.join("script");
    let text = proposal
        .script
        .replace("/etc/resolv.conf", file.to_str().unwrap());
    fs::write(&script, text).unwrap();
    let values: BTreeMap<String, String> = proposal
        .bindings
        .iter()
        .map(|binding| (binding.variable(), binding.pseudonym.clone()))
        .collect();
    Command::new(shell)
        .arg(&script)
        .env_clear()
        .env("PATH", folder)
        .env("LOG", folder.join("log"))
        .envs(values)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn shells() -> impl Iterator<Item = &'static str> {
    ["/bin/sh", "/bin/bash", "/usr/bin/bash"]
        .into_iter()
        .filter(|shell| Path::new(shell).exists())
}

#[test]
fn every_script_asks_for_exactly_the_granted_operation() {
    let expected = BTreeMap::from([
        (
            "no_default_route",
            "route add default via 100.64.7.1 dev wan\n",
        ),
        (
            "link_admin_down",
            "link set wan up\nroute replace default via 100.64.7.1 dev wan\n",
        ),
        ("mtu_black_hole", "link set wan mtu 1412\n"),
        ("forwarding_off", "sysctl net.ipv4.ip_forward=1\n"),
        (
            "conntrack_full",
            "sysctl net.netfilter.nf_conntrack_max=32768\n",
        ),
        ("syn_flood", "sysctl net.ipv4.tcp_syncookies=1\n"),
        ("listen_overflow", "sysctl net.core.somaxconn=512\n"),
        ("vpn_mtu", "link set wan mtu 1412\n"),
    ]);
    let mut seen = 0;
    for (cause, proposal) in proposals() {
        let Some(line) = expected.get(cause) else {
            assert!(
                matches!(proposal.manifest.operations[0], Operation::File(_)),
                "{cause}"
            );
            continue;
        };
        for shell in shells() {
            let folder = tempfile::tempdir().unwrap();
            let output = run(shell, folder.path(), &proposal, CHANGE);
            assert!(output.status.success(), "{cause}: {output:?}");
            assert_eq!(
                &fs::read_to_string(folder.path().join("log")).unwrap(),
                line
            );
        }
        seen += 1;
    }
    assert_eq!(seen, expected.len());
}

#[test]
fn a_script_whose_value_is_missing_changes_nothing() {
    for (cause, mut proposal) in all_proposals() {
        let named = ["$IP_", "$NET_"];
        if proposal.bindings.is_empty() || !named.iter().any(|name| proposal.script.contains(name))
        {
            continue;
        }
        proposal.bindings.clear();
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("resolv.conf"),
            format!("nameserver {RESOLVER}\n"),
        )
        .unwrap();
        let output = run("/bin/sh", folder.path(), &proposal, CHANGE);
        assert!(!output.status.success(), "{cause}");
        assert!(!folder.path().join("log").exists(), "{cause}");
    }
}

fn resolver_repair() -> Proposal {
    let mut broken = healthy(1);
    kill_resolver(&mut broken);
    only(&broken.verdict()).proposal.clone().unwrap()
}

/// The file after the script, if it changed it.
fn rewritten(shell: &str, before: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    fs::write(&file, before).unwrap();
    let output = run(shell, folder.path(), &resolver_repair(), CHANGE);
    let after = fs::read_to_string(&file).unwrap();
    if output.status.success() {
        Some(after)
    } else {
        assert_eq!(after, before, "refused, but changed");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(
            !folder.path().join("log").exists(),
            "refused, but asked for a change"
        );
        None
    }
}

#[test]
fn the_answering_resolver_comes_first_and_every_other_line_stays() {
    let (d, g) = (RESOLVER, SECOND);
    let cases = [
        // The alternate was not in the file.
        (
            format!("nameserver {d}\n"),
            format!("nameserver {g}\nnameserver {d}\n"),
        ),
        (
            format!("nameserver {d}\nnameserver {g}\n"),
            format!("nameserver {g}\nnameserver {d}\n"),
        ),
        // Comments, options, tabs, blank lines, odd characters, names that look alike.
        (
            format!(
                "# made by hand: $HOME `id` \\n *\n; nameserver {g}\n\nsearch  a.example b.example\n\tnameserver {g}\n\
                 nameserver\t{d}\t# first\nnameservers {g}\noptions ndots:2 *\nnameserver   {g} ; second\n\n"
            ),
            format!(
                "# made by hand: $HOME `id` \\n *\n; nameserver {g}\n\nsearch  a.example b.example\n\tnameserver {g}\n\
                 nameserver   {g} ; second\nnameserver\t{d}\t# first\nnameservers {g}\noptions ndots:2 *\n\n"
            ),
        ),
        // Named twice.
        (
            format!("nameserver {d}\nnameserver {g}\nnameserver {d}\nnameserver {g}\n"),
            format!("nameserver {g}\nnameserver {d}\nnameserver {d}\n"),
        ),
        // No newline at the end, in each place.
        (
            format!("nameserver {d}"),
            format!("nameserver {g}\nnameserver {d}"),
        ),
        (
            format!("nameserver {d}\nnameserver {g}"),
            format!("nameserver {g}\nnameserver {d}\n"),
        ),
        (
            format!("nameserver {d}\nnameserver {g}\noptions edns0"),
            format!("nameserver {g}\nnameserver {d}\noptions edns0"),
        ),
        // Three, the dead one in the middle of two others.
        (
            format!("nameserver 192.0.2.1\nnameserver {d}\nnameserver {g}\n"),
            format!("nameserver {g}\nnameserver 192.0.2.1\nnameserver {d}\n"),
        ),
        // Lines of another system.
        (
            format!("nameserver {d}\r\nnameserver {g}\r\n"),
            format!("nameserver {g}\r\nnameserver {d}\r\n"),
        ),
        (
            format!("nameserver {d}#old\nnameserver {g}#new\nsortlist 10.0.0.0/8\n"),
            format!("nameserver {g}#new\nnameserver {d}#old\nsortlist 10.0.0.0/8\n"),
        ),
    ];
    for shell in shells() {
        for (before, after) in &cases {
            assert_eq!(
                rewritten(shell, before).as_ref(),
                Some(after),
                "{shell}: {before:?}"
            );
        }
    }
}

#[test]
fn a_file_that_is_no_longer_as_it_was_found_is_left_alone() {
    let (d, g) = (RESOLVER, SECOND);
    for shell in shells() {
        for before in [
            String::new(),
            "search a.example\n".into(),
            format!("nameserver {g}\n"),
            format!("# nameserver {d}\nnameserver {g}\n"),
            format!("nameserver {g}\nnameserver {d}\n"),
            // A longer address that begins like the dead one.
            format!("nameserver {d}1\n"),
        ] {
            assert_eq!(rewritten(shell, &before), None, "{shell}: {before:?}");
        }
    }
}

#[test]
fn a_file_that_is_gone_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let output = run("/bin/sh", folder.path(), &resolver_repair(), CHANGE);
    assert_eq!(output.status.code(), Some(3));
    assert!(!folder.path().join("resolv.conf").exists());
}

#[test]
fn a_change_that_is_refused_fails_the_script() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    fs::write(&file, format!("nameserver {RESOLVER}\n")).unwrap();
    let output = run("/bin/sh", folder.path(), &resolver_repair(), REFUSING);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("nameserver {RESOLVER}\n")
    );
}

#[test]
fn a_name_from_the_evidence_never_reaches_the_script() {
    let mut broken = healthy(1);
    kill_resolver(&mut broken);
    broken
        .dns
        .iter_mut()
        .for_each(|probe| probe.name = Name("a$(reboot).example".into()));
    let verdict = broken.verdict();
    let script = &only(&verdict).proposal.as_ref().unwrap().script;
    assert!(!script.contains("reboot"));
}
