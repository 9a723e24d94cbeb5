//! Sampled stacks: `perf`'s own text, read and folded.

use std::collections::BTreeMap;

/// A stack, outermost frame first.
pub(super) type Stack = Vec<String>;

/// Stacks with how often each was seen.
#[derive(Debug, Default)]
pub(super) struct Stacks(pub(super) BTreeMap<Stack, u64>);

impl Stacks {
    /// Reads what `perf script -F comm,ip,sym` writes: a line with a thread's name, its frames from the innermost outwards, an empty
    /// line.
    pub(super) fn read(text: &str) -> Self {
        let mut stacks = Self::default();
        for sample in text.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
            let Some(thread) = lines.next() else { continue };
            let mut stack: Stack = lines.map(frame).collect();
            stack.push(thread.trim().to_owned());
            stack.reverse();
            *stacks.0.entry(stack).or_default() += 1;
        }
        stacks
    }

    /// Samples.
    pub(super) fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// One line a stack, frames with semicolons between, as flame graphs are drawn from.
    pub(super) fn folded(&self) -> Vec<String> {
        self.0.iter().map(|(stack, count)| format!("{} {count}", stack.join(";"))).collect()
    }
}

/// A frame's name without its address, and without what tells one instance of generic code from another.
fn frame(line: &str) -> String {
    let name = line.trim().split_once(' ').map_or("[unknown]", |(_, name)| name);
    let (mut plain, mut depth) = (String::with_capacity(name.len()), 0_usize);
    // `<A as B>::c` keeps its words: only what is in brackets behind a name goes.
    let mut before = ' ';
    for letter in name.chars() {
        match letter {
            '<' if depth > 0 || before.is_alphanumeric() || before == ':' || before == '_' => depth += 1,
            '>' if depth > 0 => depth -= 1,
            ';' if depth == 0 => plain.push(','),
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
        before = letter;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_folded_outermost_first_without_instances() {
        let sample = "worker \n\t 55aa01 tokio::poll<alloc::Box<dyn A>, B>\n\t 55aa02 <a::B as c::D>::run\n\n";
        let stacks = Stacks::read(&sample.repeat(2));
        assert_eq!(stacks.folded(), ["worker;<a::B as c::D>::run;tokio::poll 2"]);
        assert_eq!(stacks.count(), 2);
    }
}
