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

/// Reads a banner line as [`banner`] writes it, entries in any order; `None` if it is none that this version carries.
#[must_use]
pub fn parse(text: &str) -> Option<Marking> {
    let mut parts = text.trim().split("//");
    let level = match parts.next()? {
        "UNCLASSIFIED" => 0,
        "CUI" => 1,
        _ => return None,
    };
    let mut marking = Marking { level, ..Marking::default() };
    for part in parts {
        match part.strip_prefix("REL TO ") {
            Some(list) if marking.rel_to.is_empty() => {
                marking.rel_to = list.split(',').map(|entry| entry.trim().to_owned()).collect();
            }
            Some(_) => return None,
            None if part == "REL TO" => return None,
            None => marking.caveats.push(part.to_owned()),
        }
    }
    for list in [&mut marking.caveats, &mut marking.rel_to] {
        if !list.iter().all(|entry| is_plain(entry)) {
            return None;
        }
        list.sort();
        list.dedup();
    }
    Some(marking)
}

/// An entry of a marking in the grammar that terms have.
#[must_use]
pub fn is_plain(entry: &str) -> bool {
    !entry.is_empty()
        && entry.len() <= 63
        && entry.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'-' | b' ' | b'/'))
}

/// The least marking above both; `None` if their REL TO lists have nobody in common.
#[must_use]
pub fn joined(one: &Marking, other: &Marking) -> Option<Marking> {
    let mut joined = raised(one, other.level, &other.caveats);
    if joined.rel_to.is_empty() {
        joined.rel_to.clone_from(&other.rel_to);
    } else if !other.rel_to.is_empty() {
        joined.rel_to.retain(|entry| other.rel_to.contains(entry));
        if joined.rel_to.is_empty() {
            return None;
        }
    }
    Some(joined)
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

    #[test]
    fn banners_are_read_back_and_nothing_else_is() {
        for text in ["UNCLASSIFIED", "CUI//NOFORN//PROPIN", "CUI//REL TO FVEY, USA"] {
            assert_eq!(parse(text).as_ref().map(banner).as_deref(), Some(text));
        }
        assert_eq!(parse(" CUI//PROPIN//NOFORN "), Some(marking(1, &["NOFORN", "PROPIN"], &[])));
        for text in ["", "SECRET", "CUI//", "CUI//noforn", "CUI//REL TO ", "CUI//REL TO A//REL TO B", "cui"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn of_two_markings_the_joined_one_is_above_both() {
        let (one, other) = (marking(0, &["PROPIN"], &["FVEY", "USA"]), marking(1, &["NOFORN"], &["USA"]));
        assert_eq!(joined(&one, &other), Some(marking(1, &["NOFORN", "PROPIN"], &["USA"])));
        assert_eq!(joined(&marking(1, &[], &[]), &one), Some(marking(1, &["PROPIN"], &["FVEY", "USA"])));
        assert_eq!(joined(&one, &marking(0, &[], &["CAN"])), None);
    }
}
