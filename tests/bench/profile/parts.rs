//! Which part of a call a sampled stack belongs to.

use super::stacks::Stacks;

/// A part of a call's work.
struct Part {
    name: &'static str,
    /// A frame that holds one of these is of this part.
    frames: &'static [&'static str],
}

/// What no rule names.
const OTHER: &str = "the rest";

/// From the innermost frame outwards the first one that is of some part decides; within a frame the first part in this order.
const PARTS: &[Part] = &[
    part(
        "signatures verified",
        &["ed25519_dalek::verifying", "::verification::", "key::PublicKey::holds", "envelope::"],
    ),
    part("signatures made", &["ed25519_dalek::signing", "Ed25519KeyPair::sign", "Ed25519Signer"]),
    part("answers hashed into the signed chain", &["ResponseChain"]),
    part("disk", &["fdatasync", "ext4_", "vfs_fsync", "blk_", "pwrite"]),
    part(
        "network, in the kernel",
        &["tcp_", "inet_", "sock_", "__sys_send", "__sys_recv", "ksys_writev", "do_writev", "sys_epoll", "ip_output"],
    ),
    part("waiting and waking, in the kernel", &["futex", "eventfd", "schedule", "sys_nanosleep", "timer"]),
    part("TLS", &["rustls", "aes_gcm", "chacha20", "gcm_", "tokio_rustls"]),
    part("content scan", &["content::scan"]),
    part("body parsed", &["content::body"]),
    part("rules and facts", &["judge::", "facts::", "cedar_policy", "decide::", "alike::", "epochs::"]),
    part(
        "records encoded, sealed, opened",
        &["record::encode", "Record::", "Core::seal", "ledger::record", "Core::propose"],
    ),
    part("log written", &["book::wal", "Writer::", "journal::writer", "keyring", "aead::"]),
    part("state", &["anteroom_policy::state", "imbl"]),
    part("index, tiles, publishing", &["index::", "sled", "publisher", "tiles", "boot::publish"]),
    part("HTTP/2 and gRPC", &["h2::", "hyper", "tonic", "prost", "http::", "tower", "axum", "anteroom_proto::rpc"]),
    part("relay", &["anteroom_broker::relay", "anteroom_broker::service", "anteroom_broker::listen"]),
    part("runtime", &["tokio::"]),
];

const fn part(name: &'static str, frames: &'static [&'static str]) -> Part {
    Part { name, frames }
}

/// Shares of all samples by part, all parts in their order and what is left at last.
pub(super) fn shares(stacks: &Stacks) -> Vec<(&'static str, f64)> {
    let mut counts = vec![0_u64; PARTS.len() + 1];
    for (stack, count) in &stacks.0 {
        let of = |frame: &String| PARTS.iter().position(|part| part.frames.iter().any(|word| frame.contains(word)));
        let place = stack.iter().rev().find_map(of).unwrap_or(PARTS.len());
        counts[place] += count;
    }
    let all = stacks.count().max(1) as f64;
    let names = PARTS.iter().map(|part| part.name).chain([OTHER]);
    names.zip(counts).map(|(name, count)| (name, count as f64 / all)).collect()
}

/// Leaves of all samples, the most frequent first: what to look at where a part is large.
pub(super) fn leaves(stacks: &Stacks, most: usize) -> Vec<(String, f64)> {
    let mut by_name = std::collections::BTreeMap::<&str, u64>::new();
    for (stack, count) in &stacks.0 {
        if let Some(leaf) = stack.last() {
            *by_name.entry(leaf).or_default() += count;
        }
    }
    let all = stacks.count().max(1) as f64;
    let mut leaves: Vec<_> = by_name.into_iter().map(|(name, count)| (name.to_owned(), count as f64 / all)).collect();
    leaves.sort_by(|one, other| other.1.total_cmp(&one.1));
    leaves.truncate(most);
    leaves
}
