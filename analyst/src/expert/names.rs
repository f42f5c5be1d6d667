//! Names that are blocked, forged or refused on their way: faults of DNS beyond a resolver that is dead or slow.

mod blocked;
mod dnssec;
mod lying;
mod rebinding;

pub(super) use self::dnssec::is_refusal;

use super::draft::Examined;
use crate::case::View;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    examined.drafts.extend(blocked::examine(view));
    examined.drafts.extend(dnssec::examine(view));
    let lies = lying::examine(view);
    examined.drafts.extend(lies.drafts);
    examined.well.extend(lies.well);
    examined.drafts.extend(rebinding::examine(view));
    examined
}
