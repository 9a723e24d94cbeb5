//! Cutting an input down to what makes it fail.

use super::{Target, tried};

/// Most attempts.
const TRIES_MAX: usize = 600;

/// The smallest input found that fails in the same way.
pub(super) fn minimised(target: &dyn Target, input: &[u8], why: &str) -> Vec<u8> {
    let hook = std::panic::take_hook();
    // Hundreds of the same panic tell nothing new.
    std::panic::set_hook(Box::new(|_| {}));
    let fails = |input: &[u8]| tried(target, input).is_err_and(|other| kind(&other) == kind(why));
    let mut smallest = input.to_vec();
    let mut tries = 0;
    let mut piece = smallest.len().div_ceil(2).max(1);
    while tries < TRIES_MAX {
        let mut at = 0;
        let mut cut = false;
        while at < smallest.len() && tries < TRIES_MAX {
            let end = (at + piece).min(smallest.len());
            let rest = [&smallest[..at], &smallest[end..]].concat();
            tries += 1;
            if fails(&rest) {
                smallest = rest;
                cut = true;
            } else {
                at = end;
            }
        }
        if piece == 1 && !cut {
            break;
        }
        piece = piece.div_ceil(2).max(1);
    }
    std::panic::set_hook(hook);
    smallest
}

/// What went wrong, without the particulars.
fn kind(why: &str) -> &str {
    why.split_once(':').map_or(why, |(kind, _)| kind)
}
