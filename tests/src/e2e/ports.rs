//! Ports that stay ours while a broker is down.
//!
//! The kernel would hand a port from its own range to any outgoing connection meanwhile, even to one that looks for the broker and
//! so would meet itself. Ports below that range are given to nobody who does not ask for them.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// First port looked at.
const FIRST: u16 = 12_000;

/// Three free ports in a row below the kernel's own range.
///
/// # Panics
/// There are none.
#[must_use]
pub fn three() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end: u16 = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768);
    let places = end.saturating_sub(FIRST) / 3;
    assert!(places > 0, "the kernel's own range leaves no ports");
    // Test programs run side by side, so each starts elsewhere.
    let start = std::process::id().wrapping_mul(2_654_435_761) >> 8;
    for _ in 0..places {
        let place = (start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(places);
        let port = FIRST + 3 * u16::try_from(place).unwrap_or(0);
        if (port..port + 3).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return port;
        }
    }
    panic!("no three ports in a row are free");
}
