//! The way back, at rest.

use aizen_protocol::package::BindingKind;
use aizen_sanitizer::{Policy, Sanitizer, SanitizerKey, SealError, Vendor};

use crate::{keyed, sanitizer, text};

const LINE: &str =
    "nas7.acme.com 10.1.2.3 192.168.3.0/24 aa:bb:cc:dd:ee:0f anna@acme.com password=hunter22";

#[test]
fn a_sealed_map_reveals_after_a_restart_and_shows_nothing() {
    let mut before = sanitizer();
    let out = text(&mut before, LINE);
    let sealed = before.seal_map().unwrap();
    for private in ["nas7", "acme", "10.1.2.3", "aa:bb", "anna", "hunter22"] {
        let found = sealed
            .windows(private.len())
            .any(|w| w == private.as_bytes());
        assert!(!found, "{private} is readable");
    }
    let mut after = sanitizer();
    assert_eq!(after.reveal_text(&out), out, "knows without the map");
    assert_eq!(after.open_map(&sealed).unwrap(), before.known());
    assert_eq!(
        after.reveal_text(&out),
        LINE.replace("hunter22", "[redacted:password]"),
        "a secret is in no map"
    );
    let pseudonym = after
        .pseudonym_of(BindingKind::Address, "10.1.2.3")
        .unwrap();
    assert_eq!(
        after.reveal(BindingKind::Address, &pseudonym).as_deref(),
        Some("10.1.2.3")
    );
}

#[test]
fn a_sealed_map_opens_under_its_own_key_and_policy_only_and_not_if_a_bit_changed() {
    let mut s = sanitizer();
    text(&mut s, LINE);
    let sealed = s.seal_map().unwrap();
    let refused = |mut other: Sanitizer, sealed: &[u8]| {
        assert!(matches!(other.open_map(sealed), Err(SealError::Unopenable)));
        assert_eq!(other.known(), 0);
    };
    refused(keyed(7), &sealed);
    let key = || SanitizerKey::from_bytes([42; 32]);
    refused(
        Sanitizer::new(
            key(),
            Policy {
                period: 1,
                ..Policy::default()
            },
        ),
        &sealed,
    );
    refused(
        Sanitizer::new(
            key(),
            Policy {
                vendor: Vendor::Kept,
                ..Policy::default()
            },
        ),
        &sealed,
    );
    for at in [0, 7, 8, 31, 32, sealed.len() / 2, sealed.len() - 1] {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        refused(sanitizer(), &damaged);
    }
    for cut in [0, 1, 8, 32, 40, sealed.len() - 1] {
        refused(sanitizer(), &sealed[..cut]);
    }
}

#[test]
fn periods_can_not_be_joined() {
    let of = |period| {
        let policy = Policy {
            period,
            ..Policy::default()
        };
        let mut s = Sanitizer::new(SanitizerKey::from_bytes([1; 32]), policy);
        text(&mut s, LINE)
    };
    assert_ne!(of(0), of(1));
    assert_eq!(of(1), of(1));
}

#[test]
fn the_vendor_of_a_mac_stays_if_the_policy_says_so() {
    let policy = Policy {
        vendor: Vendor::Kept,
        ..Policy::default()
    };
    let s = Sanitizer::new(SanitizerKey::from_bytes([1; 32]), policy);
    let of = |mac| s.pseudonym_of(BindingKind::Mac, mac).unwrap();
    assert!(of("a4:5e:60:c1:02:9f").starts_with("a4:5e:60:"));
    assert_ne!(of("a4:5e:60:c1:02:9f"), "a4:5e:60:c1:02:9f");
}

#[test]
fn a_small_map_stays_small_and_forgets_the_oldest() {
    let policy = Policy {
        map_entries: 100,
        ..Policy::default()
    };
    let mut s = Sanitizer::new(SanitizerKey::from_bytes([1; 32]), policy);
    for n in 0..2000_u32 {
        text(
            &mut s,
            &format!("from 10.{}.{}.{}", n % 7, n / 200, n % 200 + 1),
        );
        assert!(s.known() <= 101, "{}", s.known());
    }
    assert!(s.counts().evicted >= 1000);
    assert!(s.revision() > 1000);
}
