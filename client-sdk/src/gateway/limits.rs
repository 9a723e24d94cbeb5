//! The bounds of a gateway.

use std::time::Duration;

use anteroom_proto::statement::terms::CALL_BYTES_MAX;

/// Largest body of a request in bytes: the largest that any terms can name.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest head of a request in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header lines in a request.
pub const HEADERS_MAX: usize = 100;

const _: () = assert!(BODY_BYTES_MAX as u64 == CALL_BYTES_MAX);

/// Bounds that can be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at once. One more ends the connection that has said nothing for longest; while all are in a call, it waits.
    /// 512 by default.
    pub connections: usize,
    /// Calls at once, parked ones included. 256 by default.
    pub calls: usize,
    /// Bytes of bodies held at once. 256 MiB by default.
    pub bodies: usize,
    /// Calls that wait at once for a paused grant. 128 by default.
    pub parked: usize,
    /// How long one of them waits: less than most clients do. 9 minutes by default.
    pub park: Duration,
    /// How long a request's head may take, and how long a connection may be idle. 30 s by default.
    pub head: Duration,
    /// How long a request's body may take. 60 s by default.
    pub body: Duration,
    /// How long a client may leave an answer unread before its call is given up. 60 s by default.
    pub stall: Duration,
    /// How long calls may go on after the end was asked for. 30 s by default.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            calls: 256,
            bodies: 256 * 1024 * 1024,
            parked: 128,
            park: Duration::from_secs(9 * 60),
            head: Duration::from_secs(30),
            body: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}
