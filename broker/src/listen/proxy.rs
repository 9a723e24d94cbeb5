//! The PROXY protocol, version 2: where a connection came from before a balancer took it.
//!
//! A listed peer begins each connection with a header of its own, in front of TLS; nobody else may. The header says the
//! address that networks in terms, limits for an address and log lines know from there on.
//!
//! **Invariant:** nothing is believed of a peer that is not listed, a listed peer is never taken for its clients, and no byte
//! behind the header is read here.

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::block::Block;

/// Most blocks in a configuration.
pub const PROXY_PEERS_MAX: usize = 64;
/// Most bytes behind the fixed part of a header. Addresses take 36; the rest is what balancers add about TLS and clouds.
const REST_BYTES_MAX: u16 = 2_048;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_1: &[u8] = b"PROXY ";
/// Version 2 and `LOCAL`: the peer's own connection, such as its probe.
const LOCAL: u8 = 0x20;
/// Version 2 and `PROXY`: somebody else's connection.
const PROXY: u8 = 0x21;
const TCP_4: u8 = 0x11;
const TCP_6: u8 = 0x21;
const CRC32C: u8 = 0x03;

/// The peers whose headers are believed.
#[derive(Clone, Debug, Default)]
pub struct ProxyPeers(Vec<Block>);

impl ProxyPeers {
    /// Takes the first [`PROXY_PEERS_MAX`].
    #[must_use]
    pub fn new(mut blocks: Vec<Block>) -> Self {
        blocks.truncate(PROXY_PEERS_MAX);
        Self(blocks)
    }

    /// Whether the peer at this address has to send a header.
    #[must_use]
    pub fn list(&self, peer: IpAddr) -> bool {
        self.0.iter().any(|block| block.holds(peer))
    }
}

/// Why a header was refused, and the connection with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    /// It ended or broke before the header did.
    #[error("the connection ended before its PROXY header did: {0}")]
    Io(#[from] io::Error),
    /// A header of version 1.
    #[error("the PROXY header is of version 1, version 2 is expected")]
    VersionOne,
    /// No header.
    #[error("no PROXY header came, though the peer is one of `proxy_peers`")]
    Absent,
    /// Another version, or a command that there is not.
    #[error("the PROXY header's version and command {0:#04x} are unknown")]
    Command(u8),
    /// Not a TCP connection's address: believing the peer's own instead would take it for its clients.
    #[error("the PROXY header's address family {0:#04x} is not TCP over IPv4 or IPv6")]
    Family(u8),
    /// Longer than [`REST_BYTES_MAX`].
    #[error("the PROXY header says {0} bytes, {REST_BYTES_MAX} at most are read")]
    TooLong(u16),
    /// Too short for its addresses, or its extensions do not add up.
    #[error("the PROXY header contradicts its own length")]
    Length,
    /// Its checksum is another one's.
    #[error("the PROXY header's checksum does not hold")]
    Checksum,
}

/// Reads a header and not a byte more: where the connection came from, `None` if it is the peer's own.
///
/// # Errors
/// See [`ProxyError`].
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, ProxyError> {
    let mut header = vec![0; SIGNATURE.len()];
    // Alone first: the shortest header of version 1 is shorter than the fixed part of version 2.
    stream.read_exact(&mut header).await?;
    if header != SIGNATURE {
        return Err(if header.starts_with(VERSION_1) { ProxyError::VersionOne } else { ProxyError::Absent });
    }
    let [command, family, high, low] = {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        fixed
    };
    header.extend([command, family, high, low]);
    let length = u16::from_be_bytes([high, low]);
    if length > REST_BYTES_MAX {
        return Err(ProxyError::TooLong(length));
    }
    let mut rest = vec![0; usize::from(length)];
    stream.read_exact(&mut rest).await?;
    match command {
        // The specification has whatever follows discarded unread.
        LOCAL => Ok(None),
        PROXY => {
            let (source, extensions) = source(family, &rest)?;
            check(&header, &rest, extensions)?;
            Ok(Some(source))
        }
        other => Err(ProxyError::Command(other)),
    }
}

/// The source address, and the extensions behind the addresses.
fn source(family: u8, rest: &[u8]) -> Result<(SocketAddr, &[u8]), ProxyError> {
    match family {
        TCP_4 => {
            let (addresses, extensions) = rest.split_first_chunk::<12>().ok_or(ProxyError::Length)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            let source = (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into();
            Ok((source, extensions))
        }
        TCP_6 => {
            let (from, rest) = rest.split_first_chunk::<16>().ok_or(ProxyError::Length)?;
            let (_, rest) = rest.split_first_chunk::<16>().ok_or(ProxyError::Length)?;
            let ([high, low, _, _], extensions) = rest.split_first_chunk::<4>().ok_or(ProxyError::Length)?;
            Ok(((Ipv6Addr::from(*from), u16::from_be_bytes([*high, *low])).into(), extensions))
        }
        other => Err(ProxyError::Family(other)),
    }
}

/// Follows the extensions to their end, and holds the whole against the checksum among them, if there is one.
fn check(fixed: &[u8], rest: &[u8], mut extensions: &[u8]) -> Result<(), ProxyError> {
    while let Some(([kind, high, low], behind)) = extensions.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, behind) = behind.split_at_checked(length).ok_or(ProxyError::Length)?;
        if *kind == CRC32C {
            let stated = u32::from_be_bytes(value.try_into().map_err(|_| ProxyError::Length)?);
            let before = rest.len().saturating_sub(behind.len()).saturating_sub(value.len());
            let covered = rest.get(..before).ok_or(ProxyError::Length)?;
            // The checksum covers the header with zeros where it stands itself.
            let sum = [covered, &[0; 4], behind].into_iter().fold(crc32c::crc32c(fixed), crc32c::crc32c_append);
            if sum != stated {
                return Err(ProxyError::Checksum);
            }
        }
        extensions = behind;
    }
    if extensions.is_empty() { Ok(()) } else { Err(ProxyError::Length) }
}
