//! Where the records of this reader's scopes stand, by their tags: sixteen bytes a record.
//!
//! A tag is 16 bytes of a keyed digest. Its first eight and the record's index are kept, in the order of the tags; whether an entry
//! that shares the eight has the whole tag is read from the mirrored entry at that index. So nothing is taken for something else, and
//! what is held does not grow with what records say.
//!
//! **Invariant:** after [`Tags::settle`], every place that was inserted is found.

/// Bits of a tag that say in which part of the list to look, at most: a mebibyte of beginnings.
const PART_BITS_MAX: u32 = 18;
/// Places that a part has on average.
const PART_BITS: u32 = 3;
/// New places are kept beside the others until they are this part of them.
const MERGE_AT: usize = 16;

/// The first half of a tag, and where its record stands.
type Place = (u64, u64);

/// Places by tag.
#[derive(Debug, Default)]
pub(super) struct Tags {
    all: Sorted,
    /// Those of later rounds.
    late: Sorted,
    fresh: Vec<Place>,
}

impl Tags {
    /// Adds a record's place.
    pub(super) fn insert(&mut self, tag: &[u8; 16], index: u64) {
        self.fresh.push((half(tag), index));
    }

    /// How many were inserted since the last [`Tags::settle`].
    pub(super) const fn fresh(&self) -> u64 {
        self.fresh.len() as u64
    }

    /// How many there are.
    pub(super) const fn len(&self) -> u64 {
        (self.all.places.len() + self.late.places.len() + self.fresh.len()) as u64
    }

    /// Makes what was inserted findable.
    pub(super) fn settle(&mut self) {
        self.late.places.append(&mut self.fresh);
        if self.late.places.len() >= self.all.places.len() / MERGE_AT {
            self.all.places.append(&mut self.late.places);
            self.all.sort();
        }
        self.late.sort();
    }

    /// Where records stand whose tag begins as this one; nearly always none, or the one that has it.
    pub(super) fn places(&self, tag: &[u8; 16]) -> impl Iterator<Item = u64> {
        let half = half(tag);
        self.all.of(half).chain(self.late.of(half))
    }
}

/// Places in order, with where each part of them begins.
#[derive(Debug, Default)]
struct Sorted {
    places: Vec<Place>,
    /// Empty as long as nothing was sorted.
    begins: Vec<u32>,
    bits: u32,
}

impl Sorted {
    fn sort(&mut self) {
        // What came before is in order already, which this sort makes use of.
        self.places.sort();
        self.bits = self.places.len().checked_ilog2().unwrap_or(0).saturating_sub(PART_BITS).min(PART_BITS_MAX);
        self.begins = vec![0; (1 << self.bits) + 2];
        for (half, _) in &self.places {
            let part = self.part(*half) + 1;
            if let Some(count) = self.begins.get_mut(part) {
                *count = count.saturating_add(1);
            }
        }
        let mut sum = 0_u32;
        for begin in &mut self.begins {
            sum = sum.saturating_add(*begin);
            *begin = sum;
        }
    }

    fn part(&self, half: u64) -> usize {
        usize::try_from(half.checked_shr(64 - self.bits).unwrap_or(0)).unwrap_or(0)
    }

    fn of(&self, half: u64) -> impl Iterator<Item = u64> {
        let part = self.part(half);
        let begin = |part: usize| self.begins.get(part).map_or(0, |begin| *begin as usize);
        let some = self.places.get(begin(part)..begin(part + 1)).unwrap_or_default();
        let first = some.partition_point(|(other, _)| *other < half);
        some.iter().skip(first).take_while(move |(other, _)| *other == half).map(|(_, index)| *index)
    }
}

fn half(tag: &[u8; 16]) -> u64 {
    tag.first_chunk().map_or(0, |half| u64::from_be_bytes(*half))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: u64) -> [u8; 16] {
        let mut tag = [0; 16];
        // Spread as a keyed digest's.
        tag[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        tag
    }

    fn places(tags: &Tags, number: u64) -> Vec<u64> {
        tags.places(&tag(number)).collect()
    }

    #[test]
    fn every_place_is_found_however_they_came() {
        let mut tags = Tags::default();
        let mut next = 0;
        for count in [0, 1, 2, 700, 1, 3, 40, 5_000, 1] {
            for _ in 0..count {
                tags.insert(&tag(next), next * 3);
                next += 1;
            }
            assert_eq!(tags.fresh(), count);
            tags.settle();
            assert_eq!((tags.len(), tags.fresh()), (next, 0));
            for number in 0..next {
                assert_eq!(places(&tags, number), [number * 3]);
            }
            assert_eq!(places(&tags, next), Vec::<u64>::new());
        }
    }

    #[test]
    fn tags_that_begin_alike_are_all_found() {
        let mut tags = Tags::default();
        for index in [9, 4, 7] {
            tags.insert(&tag(1), index);
        }
        for number in 2..900 {
            tags.insert(&tag(number), 0);
        }
        tags.settle();
        tags.insert(&tag(1), 1_000);
        tags.settle();
        assert_eq!(places(&tags, 1), [4, 7, 9, 1_000]);
        // The largest tag is in the last part.
        tags.insert(&[0xff; 16], 5);
        tags.settle();
        assert_eq!(tags.places(&[0xff; 16]).collect::<Vec<_>>(), [5]);
    }
}
