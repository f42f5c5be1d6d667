use proptest::prelude::*;

use super::*;

const NETWORK: &str = "# made by a person\n\nconfig interface 'loopback'\n\toption device 'lo'\n\nconfig interface 'lan'  # ours\n\toption proto static\n\toption ipaddr \"192.168.1.1\"   # the old one\n\tlist dns '9.9.9.9'\n\t# between\n\tlist dns '1.1.1.1'\n\nconfig route\n\toption target '10.0.0.0/8'\n\nconfig route\n\toption target 'it'\\''s'";

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn file() -> File {
    File::parse(NETWORK.as_bytes()).unwrap()
}

fn text(value: &str) -> Held {
    Held::Text(value.to_owned())
}

fn edited(at: &str, edit: Edit) -> String {
    file().edit(&key(at), &edit).unwrap().into_text()
}

#[test]
fn a_file_is_read_as_the_library_reads_it() {
    let file = file();
    for (at, held) in [
        ("network.lan.proto", text("static")),
        ("network.lan.ipaddr", text("192.168.1.1")),
        ("network.lan.gateway", Held::Absent),
        ("network.nothing.x", Held::Absent),
        ("network.@route[0].target", text("10.0.0.0/8")),
        ("network.@route[-1].target", text("it's")),
        ("network.@route[2].target", Held::Absent),
        ("network.@route[-3].target", Held::Absent),
        ("network.@interface[1].proto", text("static")),
        (
            "network.lan.dns",
            Held::List(vec!["9.9.9.9".into(), "1.1.1.1".into()]),
        ),
    ] {
        assert_eq!(file.get(&key(at)).unwrap(), held, "{at}");
    }
}

#[test]
fn one_option_changes_one_line_and_all_else_stays_as_it_was_written() {
    let set = edited("network.lan.ipaddr", Edit::Set("192.168.7.1".into()));
    assert_eq!(
        set,
        NETWORK.replace(
            "option ipaddr \"192.168.1.1\"",
            "option ipaddr '192.168.7.1'"
        )
    );
    let added = edited("network.lan.gateway", Edit::Set("192.168.1.254".into()));
    assert_eq!(
        added,
        NETWORK.replace(
            "\tlist dns '1.1.1.1'\n",
            "\tlist dns '1.1.1.1'\n\toption gateway '192.168.1.254'\n"
        )
    );
    let last = edited("network.@route[1].gateway", Edit::Set("10.0.0.1".into()));
    assert_eq!(last, format!("{NETWORK}\n\toption gateway '10.0.0.1'\n"));
    let deleted = edited("network.lan.proto", Edit::Delete);
    assert_eq!(deleted, NETWORK.replace("\toption proto static\n", ""));
}

#[test]
fn lists_grow_and_shrink_in_their_place() {
    let grown = edited("network.lan.dns", Edit::AddList("8.8.8.8".into()));
    assert!(
        grown.contains("\tlist dns '1.1.1.1'\n\tlist dns '8.8.8.8'\n"),
        "{grown}"
    );
    let shrunk = edited("network.lan.dns", Edit::DelList("9.9.9.9".into()));
    assert!(
        !shrunk.contains("9.9.9.9") && shrunk.contains("# between"),
        "{shrunk}"
    );
    let made = edited("network.lan.proto", Edit::AddList("x".into()));
    assert!(made.contains("\tlist proto 'static'\n"), "{made}");
    let one = edited("network.lan.dns", Edit::Set("4.4.4.4".into()));
    assert_eq!(one.matches("dns").count(), 1, "{one}");
}

#[test]
fn sections_come_and_go() {
    let made = edited("network.guest", Edit::Set("interface".into()));
    assert_eq!(made, format!("{NETWORK}\n\nconfig interface 'guest'\n"));
    let gone = edited("network.lan", Edit::Delete);
    assert!(
        !gone.contains("'lan'") && gone.contains("config route"),
        "{gone}"
    );
    let kind = edited("network.lan", Edit::Set("alias".into()));
    assert!(kind.contains("config alias 'lan'  # ours"), "{kind}");
    let held = file().get(&key("network.lan")).unwrap();
    let back = File::parse(gone.as_bytes())
        .unwrap()
        .put(&key("network.lan"), &held)
        .unwrap();
    assert_eq!(
        back.get(&key("network.lan.ipaddr")).unwrap(),
        text("192.168.1.1")
    );
}

#[test]
fn what_is_not_clear_is_refused() {
    for bad in [
        "option x y\n",
        "config\n",
        "config a b c\n",
        "config interface 'lan\n",
        "what is this\n",
        "config a b; option c d\n",
        "config interface lan\n\toption a\n",
    ] {
        assert!(File::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let twice =
        File::parse(b"config a x\n\toption o 1\n\toption o 2\nconfig a y\nconfig a y\n").unwrap();
    assert!(matches!(twice.get(&key("p.x.o")), Err(UciError::Twice(_))));
    assert!(matches!(twice.get(&key("p.y.o")), Err(UciError::Twice(_))));
    for (at, edit) in [
        ("network.none.x", Edit::Set("1".into())),
        ("network.lan.none", Edit::Delete),
        ("network.none", Edit::Delete),
        ("network.lan.dns", Edit::DelList("7.7.7.7".into())),
        ("network.@fresh[0]", Edit::Set("fresh".into())),
    ] {
        assert!(file().edit(&key(at), &edit).is_err(), "{at}");
    }
    for bad in [
        "",
        "network",
        "network.",
        "a/b.c",
        "../x.y",
        "n.s.o.p",
        "n.@r[x].o",
        "n.@r.o",
        "n.s-t.o",
        "n.s. ",
    ] {
        assert!(Key::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn secrets_are_known_by_their_names() {
    for (name, secret) in [
        ("wireless.default_radio0.key", true),
        ("network.wg0.private_key", true),
        ("network.wan.password", true),
        ("network.peer.preshared_key", true),
        ("network.peer.public_key", false),
        ("network.lan.ipaddr", false),
    ] {
        assert_eq!(key(name).is_secret(), secret, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_file_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(config a|config a b|option x|list y|package p|[ '\"\\\\#;\n\tabc]){0,20}") {
        drop(File::parse(&bytes));
        drop(File::parse(text.as_bytes()));
    }

    #[test]
    fn what_is_set_is_read_back_and_the_way_back_leads_to_the_same_values(value in "[ -~é]{1,30}", at in prop_oneof![Just("network.lan.ipaddr"), Just("network.lan.fresh"), Just("network.@route[-1].target"), Just("network.lan.dns")]) {
        let key = key(at);
        let before = file().get(&key).unwrap();
        let set = file().edit(&key, &Edit::Set(value.clone())).unwrap();
        prop_assert_eq!(set.get(&key).unwrap(), Held::Text(value));
        let back = set.put(&key, &before).unwrap();
        prop_assert_eq!(back.get(&key).unwrap(), before);
        for other in ["network.loopback.device", "network.lan.proto", "network.@route[0].target"] {
            let other = Key::parse(other).unwrap();
            prop_assert_eq!(back.get(&other).unwrap(), file().get(&other).unwrap());
        }
    }
}
