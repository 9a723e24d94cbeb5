//! Which addresses a message may be sent to, and the connection to one that was looked at.
//!
//! A contact's host is its organisation's choice, and the broker stands where that organisation does not: without a bound,
//! contacts could knock at doors behind the operator's wall. A name is resolved once, each address is judged, and the
//! connection goes to an address that was judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpStream, lookup_host};

use super::SendError;
use crate::relay::networks::{Networks, UNKNOWN};

/// Most addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 8;

/// Connects to a host. Without TLS only this machine will do.
pub(super) async fn connect(host: &str, port: u16, tls: bool, allow: &Networks) -> Result<TcpStream, SendError> {
    let found: Vec<SocketAddr> = lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect();
    let mut last = SendError::Address(host.to_owned());
    for address in found {
        let own = tls || address.ip().to_canonical().is_loopback();
        if !own || !may_reach(address.ip(), allow) {
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Whether a message may go there: to the public network, or where the operator said.
pub(super) fn may_reach(ip: IpAddr, allow: &Networks) -> bool {
    allow.name(ip) != UNKNOWN
        || match ip.to_canonical() {
            IpAddr::V4(ip) => is_public_v4(ip),
            IpAddr::V6(ip) => is_public_v6(ip),
        }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmark = a == 198 && (b == 18 || b == 19);
    let assigned = a == 192 && b == 0 && c == 0;
    let relay = a == 192 && b == 88 && c == 99;
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        || shared
        || benchmark
        || assigned
        || relay)
}

/// Within 2000::/3, and nothing that stands for an IPv4 address or a document's example.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    let global = a & 0xe000 == 0x2000;
    let special = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    global && !special && !documentation && a != 0x2002
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]
    use super::*;
    use crate::relay::networks::Network;

    #[test]
    fn only_public_addresses_are_reached_unless_the_operator_says_more() {
        let none = Networks::default();
        for public in ["1.1.1.1", "193.0.0.1", "2606:4700::1", "::ffff:1.1.1.1"] {
            assert!(may_reach(public.parse().unwrap(), &none), "{public}");
        }
        let inner = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for inner in inner {
            assert!(!may_reach(inner.parse().unwrap(), &none), "{inner}");
        }
        let own = |block: &str| Network { name: "own".to_owned(), block: block.parse().unwrap() };
        let some = Networks::new(vec![own("10.1.2.0/24"), own("::1/128")]);
        for (address, reached) in [("10.1.2.3", true), ("10.1.3.3", false), ("::1", true), ("127.0.0.1", false)] {
            assert_eq!(may_reach(address.parse().unwrap(), &some), reached, "{address}");
        }
    }

    #[tokio::test]
    async fn plain_http_leads_to_this_machine_alone_and_only_if_the_operator_lets_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = connect("127.0.0.1", port, true, &Networks::default()).await.unwrap_err();
        assert!(matches!(refused, SendError::Address(_)), "{refused}");
        let all = Network { name: "all".to_owned(), block: "0.0.0.0/0".parse().unwrap() };
        let all = Networks::new(vec![all]);
        connect("127.0.0.1", port, false, &all).await.unwrap();
        let refused = connect("192.0.2.1", port, false, &all).await.unwrap_err();
        assert!(matches!(refused, SendError::Address(_)), "{refused}");
    }
}
