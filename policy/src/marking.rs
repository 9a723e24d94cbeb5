//! Markings as people write them, and what one adds to another.

use anteroom_proto::rpc::Marking;

/// A marking as a banner line: `UNCLASSIFIED`, `CUI`, `CUI//PROPIN//NOFORN`, `CUI//REL TO FVEY, USA`.
///
/// A level that this version cannot carry shows as `UNREADABLE`, which no banner grammar takes for a lower one.
#[must_use]
pub fn banner(marking: &Marking) -> String {
    let level = match marking.level {
        0 => "UNCLASSIFIED",
        1 => "CUI",
        _ => "UNREADABLE",
    };
    let mut parts = vec![level.to_owned()];
    parts.extend(marking.caveats.iter().cloned());
    if !marking.rel_to.is_empty() {
        parts.push(format!("REL TO {}", marking.rel_to.join(", ")));
    }
    parts.join("//")
}

/// A marking raised by what was found; it never falls.
#[must_use]
pub fn raised(marking: &Marking, level: u32, caveats: &[String]) -> Marking {
    let mut raised = marking.clone();
    raised.level = raised.level.max(level);
    raised.caveats.extend(caveats.iter().cloned());
    raised.caveats.sort();
    raised.caveats.dedup();
    raised
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marking(level: u32, caveats: &[&str], rel_to: &[&str]) -> Marking {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Marking { level, caveats: owned(caveats), rel_to: owned(rel_to) }
    }

    #[test]
    fn banners_read_as_people_write_them() {
        for (given, expected) in [
            (marking(0, &[], &[]), "UNCLASSIFIED"),
            (marking(1, &["NOFORN", "PROPIN"], &[]), "CUI//NOFORN//PROPIN"),
            (marking(1, &[], &["FVEY", "USA"]), "CUI//REL TO FVEY, USA"),
            (marking(7, &[], &[]), "UNREADABLE"),
        ] {
            assert_eq!(banner(&given), expected);
        }
    }

    #[test]
    fn what_was_found_raises_and_never_lowers() {
        let own = marking(1, &["PROPIN"], &[]);
        assert_eq!(raised(&own, 0, &[]), own);
        assert_eq!(raised(&marking(0, &[], &[]), 1, &["NOFORN".to_owned()]), marking(1, &["NOFORN"], &[]));
    }
}
