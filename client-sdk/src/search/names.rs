//! The names that rows use: each stands once in a file, a line of JSON each, and its line's number stands for it.

use std::collections::HashMap;

/// A name's number; 0 is the empty name.
pub(crate) type NameId = u32;

/// Most names. Beyond it new ones become one that says so: identifiers chosen by callers must not fill a disk.
pub(crate) const NAMES_MAX: usize = 4_000_000;
/// What a name is called for which there was no room.
const TOO_MANY: &str = "(too many names)";
/// Longest name in characters; the rest is cut off.
const CHARS_MAX: usize = 512;

/// Names by number and number by names.
#[derive(Debug)]
pub(crate) struct Names {
    all: Vec<Box<str>>,
    known: HashMap<Box<str>, NameId>,
}

impl Names {
    pub(crate) fn new() -> Self {
        let mut names = Self { all: Vec::new(), known: HashMap::new() };
        names.add("");
        names
    }

    /// Reads the first `count` names of a file's text; `None` if they are not there.
    pub(crate) fn read(text: &str, count: usize) -> Option<Self> {
        let mut names = Self { all: Vec::new(), known: HashMap::new() };
        for line in text.lines().take(count) {
            let name: String = serde_json::from_str(line).ok()?;
            names.add(&name);
        }
        (names.all.len() == count && count > 0).then_some(names)
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.all.len()
    }

    /// The lines of those from `first` on.
    pub(crate) fn lines_from(&self, first: usize) -> String {
        let mut out = String::new();
        for name in self.all.iter().skip(first) {
            out.push_str(&serde_json::Value::from(name.as_ref()).to_string());
            out.push('\n');
        }
        out
    }

    /// The number of a name, which is given one if it has none.
    pub(crate) fn id(&mut self, name: &str) -> NameId {
        if let Some(id) = self.cut(name) {
            return id;
        }
        if self.all.len() >= NAMES_MAX {
            return self.find(TOO_MANY).unwrap_or_else(|| self.add(TOO_MANY));
        }
        let short: String = name.chars().take(CHARS_MAX).collect();
        self.add(&short)
    }

    /// The number that a row has for a name; none if no row can have it.
    pub(crate) fn known(&self, name: &str) -> Option<NameId> {
        self.cut(name).or_else(|| self.find(TOO_MANY))
    }

    /// Finds a name as it was cut.
    fn cut(&self, name: &str) -> Option<NameId> {
        let end = name.char_indices().nth(CHARS_MAX).map_or(name.len(), |(end, _)| end);
        self.find(name.get(..end).unwrap_or(name))
    }

    fn add(&mut self, name: &str) -> NameId {
        let id = NameId::try_from(self.all.len()).unwrap_or(0);
        self.all.push(name.into());
        self.known.entry(name.into()).or_insert(id);
        id
    }

    pub(crate) fn find(&self, name: &str) -> Option<NameId> {
        self.known.get(name).copied()
    }

    pub(crate) fn name(&self, id: NameId) -> &str {
        usize::try_from(id).ok().and_then(|id| self.all.get(id)).map_or("", |name| name)
    }

    /// For each name, whether it is one of these.
    pub(crate) fn choose(&self, mut fits: impl FnMut(&str) -> bool) -> Vec<bool> {
        self.all.iter().map(|name| fits(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    #[test]
    fn names_come_back_with_their_numbers() {
        let mut names = Names::new();
        let (grant, odd) = (names.id("grant-1"), names.id("a\nb\u{202e}\""));
        assert_eq!((names.id("grant-1"), names.id("")), (grant, 0));
        let text = names.lines_from(0);
        let read = Names::read(&text, names.len()).unwrap();
        assert_eq!((read.name(grant), read.name(odd)), ("grant-1", "a\nb\u{202e}\""));
        assert_eq!((read.find("grant-1"), read.find("grant-2")), (Some(grant), None));
        assert!(Names::read(&text, names.len() + 1).is_none(), "fewer than were written down");
        assert!(Names::read("{}\n", 1).is_none());
    }

    #[test]
    fn a_long_name_is_cut_and_found_again() {
        let mut names = Names::new();
        let long = "x".repeat(10_000);
        let id = names.id(&long);
        assert_eq!(names.id(&long), id);
        assert_eq!(names.name(id).len(), CHARS_MAX);
    }
}
