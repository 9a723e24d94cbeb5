//! A balancer that passes TLS through and says, in PROXY protocol version 2, from where a connection came.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};

/// The address that its connections to the broker come from: on loopback, and nobody else's in a test.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A running balancer in front of one door. Dropping it closes its port.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    work: JoinHandle<()>,
}

impl Balancer {
    /// Starts one that says of every connection that it came from `client`.
    ///
    /// # Panics
    /// Loopback cannot be listened on.
    pub async fn start(door: SocketAddr, client: SocketAddrV4) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let work = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let socket = TcpSocket::new_v4().ok()?;
                    socket.bind((ADDRESS, 0).into()).ok()?;
                    let mut there = socket.connect(door).await.ok()?;
                    there.write_all(&header(client)).await.ok()?;
                    copy_bidirectional(&mut stream, &mut there).await.ok()
                });
            }
        });
        Self { address, work }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// What is said of a TCP connection over IPv4.
#[must_use]
pub fn header(client: SocketAddrV4) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(client.ip().octets());
    header.extend(ADDRESS.octets());
    header.extend(client.port().to_be_bytes());
    header.extend(443_u16.to_be_bytes());
    header
}
