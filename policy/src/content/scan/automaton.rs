//! Many literals at once: an Aho-Corasick automaton that also knows how much of a stopping literal it has seen.
//!
//! The depth of the open match decides what a stream holds back; no crate gives it away, and the automaton is small.
//!
//! **Invariant:** case of ASCII letters makes no difference, and a step costs the same for every input.

/// A state; 0 is the start.
pub(super) type StateId = u16;

/// Most states an automaton can have; bounds memory to a few megabytes.
pub(super) const STATES_MAX: usize = 16_384;
/// Set in a step's target where literals end.
const ENDS: StateId = 1 << 15;
const _: () = assert!(STATES_MAX <= 1 << 15);

/// The automaton.
#[derive(Debug)]
pub(super) struct Automaton {
    /// Class of each byte; bytes in no literal share class 0.
    classes: [u8; 256],
    width: usize,
    next: Vec<StateId>,
    /// Literals that end in each state.
    ends: Vec<Box<[u16]>>,
    /// Bytes of the longest stopping literal that is open in each state.
    open: Vec<u16>,
}

/// The literals need more than [`STATES_MAX`] states.
#[derive(Debug)]
pub(super) struct TooLarge;

impl Automaton {
    /// Builds the automaton of `literals`, each with whether it stops. They are in lower case.
    pub(super) fn new(literals: &[(Vec<u8>, bool)]) -> Result<Self, TooLarge> {
        let (classes, width) = classes(literals);
        let class = |byte: u8| usize::from(classes.get(usize::from(byte)).copied().unwrap_or(0));
        let mut trie = Trie { width, nodes: vec![Node::new(width, 0)] };
        for (number, (literal, stops)) in literals.iter().enumerate() {
            trie.insert(literal, *stops, u16::try_from(number).map_err(|_| TooLarge)?, &class)?;
        }
        let order = trie.link();
        let mut next = Vec::with_capacity(trie.nodes.len() * width);
        for node in &trie.nodes {
            next.extend(node.next.iter().map(|to| to.unwrap_or(0)));
        }
        drop(order);
        for to in &mut next {
            if trie.nodes.get(usize::from(*to)).is_some_and(|node| !node.ends.is_empty()) {
                *to |= ENDS;
            }
        }
        let ends = trie.nodes.iter().map(|node| node.ends.clone().into_boxed_slice()).collect();
        let open = trie.nodes.iter().map(|node| node.open).collect();
        Ok(Self { classes, width, next, ends, open })
    }

    /// The state after one more byte, and whether literals end there.
    pub(super) fn step(&self, state: StateId, byte: u8) -> (StateId, bool) {
        self.step_by(state, self.class(byte))
    }

    /// What a byte is to [`Self::step_by`].
    pub(super) fn class(&self, byte: u8) -> u8 {
        self.classes.get(usize::from(byte)).copied().unwrap_or(0)
    }

    /// [`Self::step`], by the byte's class.
    pub(super) fn step_by(&self, state: StateId, class: u8) -> (StateId, bool) {
        let to = self.next.get(usize::from(state) * self.width + usize::from(class)).copied().unwrap_or(0);
        (to & !ENDS, to & ENDS != 0)
    }

    /// Literals that end here.
    pub(super) fn ends(&self, state: StateId) -> &[u16] {
        self.ends.get(usize::from(state)).map_or(&[], |ends| ends)
    }

    /// Bytes of the longest stopping literal that is open here.
    pub(super) fn open(&self, state: StateId) -> u16 {
        self.open.get(usize::from(state)).copied().unwrap_or(0)
    }
}

/// Gives each byte that occurs a class of its own, capitals that of their small letters.
fn classes(literals: &[(Vec<u8>, bool)]) -> ([u8; 256], usize) {
    let mut classes = [0_u8; 256];
    let mut width = 1_usize;
    for byte in literals.iter().flat_map(|(literal, _)| literal) {
        let fresh = u8::try_from(width).unwrap_or(u8::MAX);
        if let Some(class) = classes.get_mut(usize::from(*byte)).filter(|class| **class == 0) {
            *class = fresh;
            width += 1;
        }
    }
    for byte in b'a'..=b'z' {
        let class = classes.get(usize::from(byte)).copied().unwrap_or(0);
        if let Some(capital) = classes.get_mut(usize::from(byte.to_ascii_uppercase())) {
            *capital = class;
        }
    }
    (classes, width)
}

struct Node {
    next: Vec<Option<StateId>>,
    fail: StateId,
    depth: u16,
    /// On the way to a stopping literal, without the failure links.
    stopping: bool,
    ends: Vec<u16>,
    open: u16,
}

impl Node {
    fn new(width: usize, depth: u16) -> Self {
        Self { next: vec![None; width], fail: 0, depth, stopping: false, ends: Vec::new(), open: 0 }
    }
}

struct Trie {
    width: usize,
    nodes: Vec<Node>,
}

impl Trie {
    fn insert(
        &mut self,
        literal: &[u8],
        stops: bool,
        number: u16,
        class: &impl Fn(u8) -> usize,
    ) -> Result<(), TooLarge> {
        let mut at = 0_usize;
        for (depth, byte) in (1_u16..).zip(literal) {
            let known = self.nodes.get(at).and_then(|node| node.next.get(class(*byte)).copied().flatten());
            let to = match known {
                Some(to) => usize::from(to),
                None => {
                    let to = self.nodes.len();
                    let id = StateId::try_from(to).ok().filter(|_| to < STATES_MAX).ok_or(TooLarge)?;
                    if let Some(slot) = self.nodes.get_mut(at).and_then(|node| node.next.get_mut(class(*byte))) {
                        *slot = Some(id);
                    }
                    self.nodes.push(Node::new(self.width, depth));
                    to
                }
            };
            if let Some(node) = self.nodes.get_mut(to) {
                node.stopping |= stops;
            }
            at = to;
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.ends.push(number);
        }
        Ok(())
    }

    /// Fills in where each state goes when no literal goes on, breadth first, so that the shorter suffix is always done.
    fn link(&mut self) -> Vec<usize> {
        let mut order = vec![0_usize];
        let mut done = 0;
        while let Some(at) = order.get(done).copied() {
            done += 1;
            let Some(node) = self.nodes.get(at) else { continue };
            let fail = usize::from(node.fail);
            let children = node.next.clone();
            for (class, child) in children.into_iter().enumerate() {
                // Where the shorter suffix goes with this byte; the start's own missing steps lead to the start.
                let suffix = match (at, self.nodes.get(fail)) {
                    (0, _) | (_, None) => 0,
                    (_, Some(node)) => node.next.get(class).copied().flatten().unwrap_or(0),
                };
                match child {
                    Some(child) => {
                        self.adopt(usize::from(child), suffix);
                        order.push(usize::from(child));
                    }
                    None => {
                        if let Some(slot) = self.nodes.get_mut(at).and_then(|node| node.next.get_mut(class)) {
                            *slot = Some(suffix);
                        }
                    }
                }
            }
        }
        order
    }

    /// Takes over what the suffix ends and holds open.
    fn adopt(&mut self, child: usize, suffix: StateId) {
        let (ends, open) =
            self.nodes.get(usize::from(suffix)).map_or((Vec::new(), 0), |node| (node.ends.clone(), node.open));
        if let Some(node) = self.nodes.get_mut(child) {
            node.fail = suffix;
            node.ends.extend(ends);
            node.open = if node.stopping { node.depth } else { open };
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use proptest::prelude::*;

    use super::*;

    fn run(automaton: &Automaton, text: &[u8]) -> (Vec<(usize, u16)>, u16) {
        let mut state = 0;
        let mut found = Vec::new();
        for (at, byte) in (1..).zip(text) {
            let (next, ends) = automaton.step(state, *byte);
            state = next;
            assert_eq!(ends, !automaton.ends(state).is_empty());
            found.extend(automaton.ends(state).iter().map(|end| (at, *end)));
        }
        found.sort_unstable();
        (found, automaton.open(state))
    }

    proptest! {
        #[test]
        fn it_finds_what_a_naive_search_finds(
            words in proptest::collection::vec(("[ab/]{1,5}", any::<bool>()), 1..6),
            text in "[abAB/ ]{0,40}",
        ) {
            let literals: Vec<(Vec<u8>, bool)> =
                words.iter().map(|(word, stops)| (word.clone().into_bytes(), *stops)).collect();
            let automaton = Automaton::new(&literals).unwrap();
            let lower = text.to_ascii_lowercase();
            let mut expected = Vec::new();
            for (number, (word, _)) in (0_u16..).zip(&words) {
                let ends = (0..=lower.len()).filter(|end| lower.get(..*end).unwrap().ends_with(word.as_str()));
                expected.extend(ends.map(|end| (end, number)));
            }
            expected.sort_unstable();
            let stopping = words.iter().filter(|(_, stops)| *stops);
            let open = stopping
                .flat_map(|(word, _)| (0..=word.len()).filter(|n| lower.ends_with(word.get(..*n).unwrap())))
                .max()
                .unwrap_or(0);
            prop_assert_eq!(run(&automaton, text.as_bytes()), (expected, u16::try_from(open).unwrap()));
        }
    }
}
