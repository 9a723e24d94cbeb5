#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use super::*;

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
}

fn over_four(extensions: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x9c, 0x40, 0x1d, 0x13];
    header(PROXY, TCP_4, &[addresses.as_slice(), extensions].concat())
}

/// With a checksum as its one extension.
fn summed() -> Vec<u8> {
    let mut header = over_four(&[CRC32C, 0, 4, 0, 0, 0, 0]);
    let sum = crc32c::crc32c(&header).to_be_bytes();
    let at = header.len() - 4;
    header.splice(at.., sum);
    header
}

async fn told(bytes: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let mut stream = bytes;
    read(&mut stream).await
}

#[tokio::test]
async fn addresses_are_the_sources_and_what_follows_stays_unread() {
    let four = "192.0.2.7:40000".parse().unwrap();
    let bytes = [over_four(&[]).as_slice(), b"hello"].concat();
    let mut stream = bytes.as_slice();
    assert_eq!(read(&mut stream).await.unwrap(), Some(four));
    assert_eq!(stream, b"hello");
    let source = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
    let six = [source.as_slice(), &[0; 16], &443_u16.to_be_bytes(), &[0; 2]].concat();
    assert_eq!(told(&header(PROXY, TCP_6, &six)).await.unwrap(), Some("[2001:db8::1]:443".parse().unwrap()));
    // Extensions that nobody here knows are followed and ignored.
    assert_eq!(told(&over_four(&[0xea, 0, 3, 1, 2, 3, 0x04, 0, 0])).await.unwrap(), Some(four));
    assert_eq!(told(&summed()).await.unwrap(), Some(four));
    let longest = vec![0; usize::from(REST_BYTES_MAX) - 12 - 3];
    let length = u16::try_from(longest.len()).unwrap().to_be_bytes();
    let padding = [[0x04].as_slice(), &length, longest.as_slice()].concat();
    assert_eq!(told(&over_four(&padding)).await.unwrap(), Some(four));
}

#[tokio::test]
async fn a_peers_own_connection_keeps_the_peers_address() {
    for rest in [&b""[..], b"whatever", &[0xff; 40]] {
        for family in [0x00, TCP_4, 0x31, 0xff] {
            assert_eq!(told(&header(LOCAL, family, rest)).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn other_headers_are_refused() {
    let refused = async |bytes: &[u8]| told(bytes).await.unwrap_err();
    assert!(matches!(refused(b"PROXY UNKNOWN\r\n").await, ProxyError::VersionOne));
    assert!(matches!(refused(b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 7443\r\n").await, ProxyError::VersionOne));
    assert!(matches!(refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00").await, ProxyError::Absent));
    for command in [0x00, 0x11, 0x22, 0x2f, 0x31, 0xff] {
        let bytes = header(command, TCP_4, &[0; 12]);
        assert!(matches!(refused(&bytes).await, ProxyError::Command(other) if other == command));
    }
    for family in [0x00, 0x01, 0x12, 0x22, 0x31, 0x41, 0xff] {
        let bytes = header(PROXY, family, &[0; 216]);
        assert!(matches!(refused(&bytes).await, ProxyError::Family(other) if other == family));
    }
    assert!(matches!(refused(&header(PROXY, TCP_4, &[0; 11])).await, ProxyError::Length));
    assert!(matches!(refused(&header(PROXY, TCP_6, &[0; 35])).await, ProxyError::Length));
    for extensions in [&[0xea][..], &[0xea, 0], &[0xea, 0, 1], &[CRC32C, 0, 3, 0, 0, 0], &[CRC32C, 0xff, 0xff, 0]] {
        assert!(matches!(refused(&over_four(extensions)).await, ProxyError::Length), "{extensions:?}");
    }
    // Refused by what it says, before as much as one byte of it was read.
    let mut long = header(PROXY, TCP_4, &[]);
    long.splice(14.., (REST_BYTES_MAX + 1).to_be_bytes());
    assert!(matches!(refused(&long).await, ProxyError::TooLong(2_049)));
}

#[tokio::test]
async fn every_cut_and_every_flipped_bit_is_noticed() {
    let whole = summed();
    for end in 0..whole.len() {
        assert!(matches!(told(whole.get(..end).unwrap()).await, Err(ProxyError::Io(_))), "cut at {end}");
    }
    for at in 0..whole.len() * 8 {
        let mut altered = whole.clone();
        *altered.get_mut(at / 8).unwrap() ^= 1 << (at % 8);
        // One bit makes PROXY out of LOCAL and back; such a header is its peer's own word.
        let local = altered.get(12) == Some(&LOCAL);
        let read = told(&altered).await;
        // Where the checksum's type or length is what was flipped, nothing vouches for the rest: a peer may leave it out.
        let unsummed = (28..31).contains(&(at / 8));
        assert!(read.is_err() || local || unsummed, "bit {at}: {read:?}");
    }
}
