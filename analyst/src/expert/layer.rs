//! Which faults are causes and which only follow from a lower one.

use super::draft::Draft;

/// Keeps the root causes, the lowest layer first; every other draft becomes a consequence of its root.
pub(super) fn roots(mut drafts: Vec<Draft>) -> Vec<Draft> {
    // Stable: within a layer the order of the evidence stays.
    drafts.sort_by_key(|draft| draft.layer);
    let parents: Vec<Option<usize>> = drafts
        .iter()
        .map(|symptom| drafts.iter().position(|cause| is_explained(symptom, cause)))
        .collect();
    let roots: Vec<usize> = (0..drafts.len())
        .map(|index| root(&parents, index))
        .collect();
    let mut kept: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    for (index, &root) in roots.iter().enumerate() {
        if root == index {
            continue;
        }
        let symptom = kept[index].take();
        if let (Some(cause), Some(symptom)) = (kept[root].as_mut(), symptom) {
            cause.absorb(symptom);
        }
    }
    let mut roots: Vec<Draft> = kept.into_iter().flatten().collect();
    if roots.iter().any(|draft| !draft.last_resort) {
        roots.retain(|draft| !draft.last_resort);
    }
    roots
}

fn is_explained(symptom: &Draft, cause: &Draft) -> bool {
    if std::ptr::eq(symptom, cause) {
        return false;
    }
    if cause.is_cover_for(symptom) {
        return true;
    }
    if cause.layer > symptom.layer {
        return false;
    }
    if let Ok(address) = symptom.component().parse()
        && cause
            .breaks_prefixes
            .iter()
            .any(|net| net.contains(address))
    {
        return true;
    }
    symptom.rests_on.is_some_and(|way| {
        way.link
            .is_some_and(|link| cause.breaks_links.contains(&link))
            || way
                .beyond
                .is_some_and(|family| cause.breaks_beyond.contains(&family))
    })
}

/// Follows the explanations down. Links can rest on each other in a circle (a VLAN that is a port of its own parent):
/// then the first of them stands for all.
fn root(parents: &[Option<usize>], start: usize) -> usize {
    let mut seen = vec![start];
    let mut index = start;
    while let Some(parent) = parents[index] {
        if seen.contains(&parent) {
            return seen.into_iter().min().unwrap_or(start);
        }
        seen.push(parent);
        index = parent;
    }
    index
}
