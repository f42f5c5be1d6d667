//! Generic netlink: families are found by name (`nlctrl`, linux/genetlink.h).

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_GENERIC;

use super::attribute::{attributes, find, put};
use super::{NetlinkError, Question, ask_part};

/// A family of this kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    /// Its message type.
    pub(crate) id: u16,
    /// Its groups of notices by name.
    pub(crate) groups: BTreeMap<String, u32>,
}

/// Looks a family up; none if this kernel doesn't have it.
pub(crate) async fn family(name: &str) -> Result<Option<Family>, NetlinkError> {
    let mut body = Vec::new();
    put(
        &mut body,
        CTRL_ATTR_FAMILY_NAME,
        format!("{name}\0").as_bytes(),
    );
    match ask_part(&question(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &body), decode).await {
        Ok(family) => Ok(family.flatten()),
        Err(NetlinkError::Refused(error)) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A question to a family: `struct genlmsghdr` and attributes.
pub(crate) fn question(family: u16, command: u8, attributes: &[u8]) -> Question {
    let mut body = vec![command, VERSION, 0, 0];
    body.extend(attributes);
    Question {
        protocol: NETLINK_GENERIC,
        kind: family,
        body,
    }
}

/// The command and the attributes of a message.
pub(crate) fn command(payload: &[u8]) -> Option<(u8, &[u8])> {
    let (&[command, ..], rest) = payload.split_first_chunk::<4>()?;
    Some((command, rest))
}

pub(crate) fn decode(payload: &[u8]) -> Option<Family> {
    let (_, body) = command(payload)?;
    let mut family = Family {
        id: find(body, CTRL_ATTR_FAMILY_ID)?.u16()?,
        groups: BTreeMap::new(),
    };
    for group in find(body, CTRL_ATTR_MCAST_GROUPS)
        .into_iter()
        .flat_map(|g| g.inner())
    {
        let name = attributes(group.value).find(|a| a.kind == CTRL_ATTR_MCAST_GRP_NAME);
        let id = find(group.value, CTRL_ATTR_MCAST_GRP_ID).and_then(|a| a.u32());
        if let (Some(name), Some(id)) = (name, id) {
            family.groups.insert(name.text(), id);
        }
    }
    Some(family)
}

const VERSION: u8 = 1;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn the_controller_finds_itself_and_nobody_else_by_a_wrong_name() {
        let found = family("nlctrl").await.unwrap().unwrap();
        assert_eq!(found.id, GENL_ID_CTRL);
        assert!(found.groups.contains_key("notify"), "{found:?}");
        assert_eq!(family("no_such_family").await.unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_family_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(&bytes));
        }
    }
}
