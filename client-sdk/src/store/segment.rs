//! Frames of a segment.

use super::FRAME_BYTES_MAX;
use anteroom_proto::names::Digest;

/// Bytes before a frame's payload: its length and its check.
pub(crate) const FRAME_HEAD_BYTES: usize = 12;

/// Appends a frame to `out`. The payload is within [`FRAME_BYTES_MAX`].
pub(crate) fn frame(payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&check(&length, payload));
    out.extend_from_slice(payload);
}

/// The payload of the frame that `bytes` start with; `None` if it is incomplete or damaged.
pub(crate) fn payload_of(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<8>()?;
    let payload = rest.get(..length_of(length)?)?;
    (check(length, payload) == *expected).then_some(payload)
}

/// Whether `bytes`, which do not start with a whole frame, are what a crash leaves of one: the beginning of a frame with no
/// whole frame anywhere after it. Unwritten blocks read as zeros, so a tail of zeros counts too.
pub(crate) fn is_cut(bytes: &[u8]) -> bool {
    if bytes.iter().all(|byte| *byte == 0) {
        return true;
    }
    // A damaged length can make a frame look cut, but what follows it is still there.
    let followed = |at: usize| bytes.get(at..).is_some_and(|rest| payload_of(rest).is_some());
    if (1..bytes.len()).any(followed) {
        return false;
    }
    match bytes.split_first_chunk::<4>() {
        None => true,
        Some((length, rest)) => length_of(length).is_some_and(|length| rest.len() < 8 + length),
    }
}

fn length_of(length: &[u8; 4]) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    (1..=FRAME_BYTES_MAX).contains(&length).then_some(length)
}

fn check(length: &[u8; 4], payload: &[u8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *Digest::of(&[length, payload].concat()).as_bytes();
    [a, b, c, d, e, f, g, h]
}
