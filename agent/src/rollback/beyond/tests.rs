use proptest::prelude::*;

use super::*;

#[test]
fn a_key_is_read_as_it_is_written() {
    for kind in KINDS {
        let name = "dev wan root".to_owned();
        let key = BeyondKey { kind, name };
        assert_eq!(BeyondKey::try_from(String::from(key.clone())).unwrap(), key);
    }
    assert!(BeyondKey::try_from("nothing of the kind".to_owned()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_objects_or_none(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in KINDS {
            let found = decode::objects(kind, &payload, &Names::default());
            prop_assert!(found.len() <= 1 || kind == Kind::Vlan);
        }
    }
}
