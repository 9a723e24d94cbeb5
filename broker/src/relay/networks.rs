//! Networks by name: rules compare names, terms list them, and only the operator's configuration says which addresses they are.

use std::net::IpAddr;

use crate::block::Block;

/// What stands for an address that no network holds.
pub const UNKNOWN: &str = "unknown";
/// Most networks in a configuration.
pub const NETWORKS_MAX: usize = 1024;

/// A named block of addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its name, as terms list it.
    pub name: String,
    /// Its addresses.
    pub block: Block,
}

/// The networks that the broker knows, first match first.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Takes the first [`NETWORKS_MAX`].
    #[must_use]
    pub fn new(mut networks: Vec<Network>) -> Self {
        networks.truncate(NETWORKS_MAX);
        Self(networks)
    }

    /// The name of the network that an address is in. An IPv4 address that comes mapped into IPv6 is the IPv4 address.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> &str {
        self.0.iter().find(|network| network.block.holds(address)).map_or(UNKNOWN, |network| &network.name)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;

    #[test]
    fn addresses_find_their_network_and_mapped_ones_are_what_they_map() {
        let network = |name: &str, block: &str| Network { name: name.to_owned(), block: block.parse().unwrap() };
        let networks = Networks::new(vec![
            network("hq", "10.1.0.0/16"),
            network("all-ten", "10.0.0.0/8"),
            network("six", "2001:db8::/32"),
        ]);
        for (address, name) in [
            ("10.1.2.3", "hq"),
            ("10.2.2.3", "all-ten"),
            ("::ffff:10.1.2.3", "hq"),
            ("11.0.0.1", UNKNOWN),
            ("2001:db8:1::1", "six"),
            ("2001:db9::1", UNKNOWN),
        ] {
            assert_eq!(networks.name(address.parse().unwrap()), name, "{address}");
        }
    }
}
