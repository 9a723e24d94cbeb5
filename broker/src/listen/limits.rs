//! The bounds of a door.

use std::time::Duration;

/// How long to wait after a failed accept.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often an open connection looks at the clock again, so that a stepped clock is noticed.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Everything a door bounds. [`ListenLimits::programme`] and [`ListenLimits::enrolment`] are the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenLimits {
    /// Handshakes under way at once; more wait in the kernel's queue.
    pub handshakes_max: usize,
    /// Time from accept to the end of a proxy's header.
    pub proxy_header_max: Duration,
    /// Time from there, or from accept, to the end of the handshake.
    pub handshake_max: Duration,
    /// Connections at once; more are turned away.
    pub connections_max: usize,
    /// Connections at once of one organisation; more are turned away.
    pub connections_per_org_max: usize,
    /// Connections at once from one address that have shown no certificate (yet); more are turned away. Where a balancer hides
    /// addresses and is not one of `proxy_peers`, this bounds the balancer.
    pub unidentified_per_address_max: usize,
    /// How long a connection may last; none means until its certificate ends.
    pub age_max: Option<Duration>,
    /// Bytes in one request's body; none leaves it to the services. A stream's body is all its messages together.
    pub request_bytes_max: Option<usize>,
    /// Streams open at once on one connection.
    pub streams_max: u32,
    /// Bytes a peer may send on a stream before it is read; held below 2 GiB, like the connection's.
    pub stream_window_bytes: u32,
    /// Bytes a peer may send on a connection before they are read.
    pub connection_window_bytes: u32,
    /// Largest HTTP/2 frame accepted, in bytes; held between 16 KiB and 16 MiB, which are HTTP/2's own bounds.
    pub frame_bytes_max: u32,
    /// Bytes of response queued per stream before its producer has to wait.
    pub send_bytes_max: usize,
    /// Bytes of a request's headers, decoded.
    pub header_bytes_max: u32,
    /// Streams the peer opened and reset again before they were looked at; more end the connection.
    pub resets_max: usize,
    /// Silence after which a connection is asked for a sign of life.
    pub ping_after: Duration,
    /// How long the sign of life may take.
    pub ping_max: Duration,
    /// How long open requests may go on after the door began to close.
    pub drain_max: Duration,
}

const KIB: u32 = 1024;

impl ListenLimits {
    /// The programme's door: 10,000 streams in 64 KiB windows each, room for a connector's idle pool on one connection.
    #[must_use]
    pub const fn programme() -> Self {
        Self {
            handshakes_max: 256,
            proxy_header_max: Duration::from_secs(3),
            handshake_max: Duration::from_secs(10),
            connections_max: 4_096,
            connections_per_org_max: 1_024,
            unidentified_per_address_max: 64,
            age_max: None,
            request_bytes_max: None,
            streams_max: 512,
            stream_window_bytes: 64 * KIB,
            // Slots × stream window: a connection's window never holds up a stream that has room of its own.
            connection_window_bytes: 512 * 64 * KIB,
            frame_bytes_max: 16 * KIB,
            send_bytes_max: 32 * 1024,
            header_bytes_max: 16 * KIB,
            resets_max: 20,
            ping_after: Duration::from_secs(30),
            ping_max: Duration::from_secs(20),
            drain_max: Duration::from_secs(30),
        }
    }

    /// The enrolment door: a few peers, a request or two each, half a minute at most.
    #[must_use]
    pub const fn enrolment() -> Self {
        Self {
            handshakes_max: 16,
            proxy_header_max: Duration::from_secs(3),
            handshake_max: Duration::from_secs(5),
            connections_max: 64,
            connections_per_org_max: 0,
            unidentified_per_address_max: 8,
            age_max: Some(Duration::from_secs(30)),
            request_bytes_max: Some(32 * 1024),
            streams_max: 2,
            stream_window_bytes: 64 * KIB,
            connection_window_bytes: 128 * KIB,
            frame_bytes_max: 16 * KIB,
            send_bytes_max: 16 * 1024,
            header_bytes_max: 8 * KIB,
            resets_max: 2,
            ping_after: Duration::from_secs(10),
            ping_max: Duration::from_secs(5),
            drain_max: Duration::from_secs(5),
        }
    }
}

const _: () = {
    let limits = ListenLimits::programme();
    assert!(limits.connection_window_bytes >= limits.streams_max * limits.stream_window_bytes);
    assert!(limits.connections_per_org_max <= limits.connections_max);
    let limits = ListenLimits::enrolment();
    assert!(limits.connection_window_bytes >= limits.streams_max * limits.stream_window_bytes);
    assert!(limits.unidentified_per_address_max <= limits.connections_max);
};
