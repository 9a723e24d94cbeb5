//! Blocks of addresses, as configurations write them: `address/bits`.

use std::{net::IpAddr, str::FromStr};

/// All addresses that share their leading bits with one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    address: IpAddr,
    bits: u32,
}

impl Block {
    /// Whether an address is in it. An IPv4 address that comes mapped into IPv6 is the IPv4 address.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let rest = 32_u32.saturating_sub(self.bits);
                u32::from(own).checked_shr(rest).unwrap_or(0) == u32::from(other).checked_shr(rest).unwrap_or(0)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let rest = 128_u32.saturating_sub(self.bits);
                u128::from(own).checked_shr(rest).unwrap_or(0) == u128::from(other).checked_shr(rest).unwrap_or(0)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether it holds every address of its kind.
    #[must_use]
    pub const fn holds_all(&self) -> bool {
        self.bits == 0
    }
}

/// A text that is no block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a block is `address/bits`, such as `192.0.2.0/24`")]
pub struct BlockError;

impl FromStr for Block {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').ok_or(BlockError)?;
        let (address, bits): (IpAddr, u32) =
            (address.parse().map_err(|_| BlockError)?, bits.parse().map_err(|_| BlockError)?);
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        if bits <= bits_max { Ok(Self { address, bits }) } else { Err(BlockError) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    #[test]
    fn a_block_holds_its_own_addresses_and_no_others() {
        for (block, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.6"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("10.1.0.0/16", "::ffff:10.1.0.1", "::10.1.0.1"),
        ] {
            let block: Block = block.parse().unwrap();
            assert!(block.holds(inside.parse().unwrap()), "{block:?} {inside}");
            assert!(!block.holds(outside.parse().unwrap()), "{block:?} {outside}");
        }
        let all: Block = "0.0.0.0/0".parse().unwrap();
        assert!(all.holds_all() && all.holds("255.0.0.1".parse().unwrap()) && !all.holds("::1".parse().unwrap()));
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "ten/8", "10.0.0.0/8/8"] {
            assert_eq!(wrong.parse::<Block>(), Err(BlockError), "{wrong}");
        }
    }
}
