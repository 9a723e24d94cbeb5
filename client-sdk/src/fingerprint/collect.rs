//! The selected runs of one answer, gathered while it passes.
//!
//! **Invariant:** how an answer was cut into events makes no difference, and what is held is bounded whatever a model server sends.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{
    PRINTS_MAX,
    normal::{Unescape, normal_form},
    text::{Channel, texts},
    winnow::{Point, Winnower},
};

/// Most texts of one answer that are followed at once: choices, reasoning, tool calls.
pub const CHANNELS_MAX: usize = 256;
/// Most characters of normal form that are looked at.
pub const CHARS_MAX: u64 = 8 << 20;

/// Gathers the selected runs of one answer.
pub struct Collector {
    point: Point,
    channels: HashMap<Channel, Follow>,
    seen: HashSet<u64>,
    values: Vec<u64>,
    chars: u64,
    cut: bool,
    /// A whole body, looked at when the answer is over.
    whole: Option<Bytes>,
}

/// The selected runs of an answer, each once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selected {
    /// Their hashes, in the order of the text.
    pub values: Vec<u64>,
    /// A bound was reached, so the answer's end left no trace.
    pub cut: bool,
}

struct Follow {
    winnower: Winnower,
    unescape: Option<Unescape>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What it holds is content.
        f.debug_struct("Collector").field("chars", &self.chars).finish_non_exhaustive()
    }
}

impl Collector {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(point: Point) -> Self {
        Self {
            point,
            channels: HashMap::new(),
            seen: HashSet::new(),
            values: Vec::new(),
            chars: 0,
            cut: false,
            whole: None,
        }
    }

    /// Takes an event in.
    pub fn event(&mut self, payload: &[u8]) {
        if !self.cut {
            texts(payload, &mut |channel, text| self.piece(channel, text));
        }
    }

    /// Takes a whole body; it is looked at in [`Collector::finish`], which may run where nobody waits.
    pub fn whole(&mut self, body: Bytes) {
        self.whole = Some(body);
    }

    /// The runs selected.
    #[must_use]
    pub fn finish(mut self) -> Selected {
        if let Some(body) = self.whole.take() {
            self.event(&body);
        }
        let mut ends: Vec<_> = self.channels.into_iter().collect();
        // In an order that is the same for the same answer.
        ends.sort_by_key(|(channel, _)| *channel);
        for (_, mut follow) in ends {
            if let Some(run) = follow.winnower.finish()
                && self.values.len() < PRINTS_MAX
                && self.seen.insert(run.value)
            {
                self.values.push(run.value);
            }
        }
        Selected { values: self.values, cut: self.cut }
    }

    fn piece(&mut self, channel: Channel, text: &str) {
        if !self.channels.contains_key(&channel) && self.channels.len() >= CHANNELS_MAX {
            self.cut = true;
            return;
        }
        let point = self.point;
        let follow = self.channels.entry(channel).or_insert_with(|| Follow {
            winnower: Winnower::new(point),
            unescape: channel.escaped.then(Unescape::default),
        });
        let before = follow.winnower.count();
        let (seen, values, cut) = (&mut self.seen, &mut self.values, &mut self.cut);
        let winnower = &mut follow.winnower;
        let mut take = |c| {
            if let Some(run) = winnower.push(c)
                && seen.insert(run.value)
            {
                if values.len() < PRINTS_MAX {
                    values.push(run.value);
                } else {
                    *cut = true;
                }
            }
        };
        match &mut follow.unescape {
            None => normal_form(text, &mut take),
            Some(unescape) => {
                let mut buffer = [0; 4];
                for c in text.chars().filter_map(|c| unescape.take(c)) {
                    normal_form(c.encode_utf8(&mut buffer), &mut take);
                }
            }
        }
        self.chars += follow.winnower.count() - before;
        self.cut |= self.chars >= CHARS_MAX;
    }
}
