//! Randomness: the one seam through which this crate draws it.
//!
//! Serial numbers, enrolment tokens and salts come from an [`Entropy`] that is handed in, so that a simulation can replace it.
//! Key pairs and TLS draw from the same operating-system generator inside their own libraries.
//!
//! **Invariant:** a generator never hands out bytes it did not draw. If the operating system's source fails, the process ends.

use ring::rand::{SecureRandom, SystemRandom};

/// A source of unpredictable bytes.
pub trait Entropy: Send {
    /// Fills the whole of `out`. It cannot fail: a source that runs dry ends the process.
    fn fill(&mut self, out: &mut [u8]);
}

/// Draws `N` bytes.
#[must_use]
pub fn bytes<const N: usize>(source: &mut dyn Entropy) -> [u8; N] {
    let mut out = [0; N];
    source.fill(&mut out);
    out
}

/// The operating system's generator.
#[derive(Debug)]
pub struct SystemEntropy {
    random: SystemRandom,
}

impl SystemEntropy {
    /// A handle on the operating system's generator; opens nothing until the first draw.
    #[must_use]
    pub fn new() -> Self {
        Self { random: SystemRandom::new() }
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        if self.random.fill(out).is_err() {
            // There is no safe answer without randomness, and unwinding could be caught: this is the one place that ends the process.
            tracing::error!("the operating system's random source failed");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let mut source = SystemEntropy::new();
        assert_ne!(bytes::<32>(&mut source), bytes::<32>(&mut source));
    }
}
