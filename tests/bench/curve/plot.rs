//! Bars of text, and what a row of figures says about growth.

use super::super::report::round;

/// Characters of the longest bar.
const WIDTH: f64 = 40.0;
/// Eighths of a character.
const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/// A figure may wander by so much of itself.
const NOISE: f64 = 0.10;
/// Logarithmic growth adds the same in every decade; what adds more than so many times as much in the last one grows faster.
const DECADE_TIMES: f64 = 2.0;

/// One bar for each figure, all to one scale that begins at nothing.
pub(super) fn bars(labels: &[String], values: &[f64], unit: &str) -> String {
    let most = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let wide = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (label, value) in labels.iter().zip(values) {
        let eighths =
            if most > 0.0 && value.is_finite() { (value.max(0.0) / most * WIDTH * 8.0).round() as usize } else { 0 };
        let bar = format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8]);
        out.push_str(&format!("{label:>wide$} {bar} {} {unit}\n", round(*value)));
    }
    out
}

/// What growth of a figure over sizes comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Growth {
    /// The last figure over the first.
    pub(super) times: f64,
    /// `p` of the power `size^p` that fits best.
    pub(super) power: f64,
    /// What each decade of sizes adds, in order.
    pub(super) decades: Vec<f64>,
    /// Whether it is no worse than logarithmic.
    pub(super) held: bool,
}

/// Looks at figures of at least three sizes, all above zero: two say nothing about how growth goes on. `spread` is half of what the figures' own rounds differ by.
pub(super) fn growth(sizes: &[f64], values: &[f64], spread: f64) -> Option<Growth> {
    let points: Vec<(f64, f64)> = sizes.iter().map(|size| size.log10()).zip(values.iter().copied()).collect();
    let (first, last) = (*points.first()?, *points.last()?);
    if points.len() < 3 || points.iter().any(|(_, value)| !value.is_finite() || *value <= 0.0) {
        return None;
    }
    let slopes = points.windows(2).filter_map(|pair| match pair {
        [(from, less), (to, more)] if to > from => Some((more - less) / (to - from)),
        _ => None,
    });
    let decades: Vec<f64> = slopes.collect();
    let (newest, before) = decades.split_last()?;
    let noise = (last.1 * NOISE).max(spread);
    let usual = before.iter().copied().fold(0.0, f64::max);
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, (x, y)| (sum.0 + x / count, sum.1 + y.log10() / count));
    let (over, under) = points
        .iter()
        .fold((0.0, 0.0), |sum, (px, py)| (sum.0 + (px - x) * (py.log10() - y), sum.1 + (px - x) * (px - x)));
    Some(Growth {
        times: last.1 / first.1,
        power: if under > 0.0 { over / under } else { 0.0 },
        held: *newest <= (usual * DECADE_TIMES).max(noise),
        decades,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [f64; 4] = [1e3, 1e4, 1e5, 1e6];

    fn held(of: impl Fn(f64) -> f64) -> bool {
        growth(&SIZES, &SIZES.map(of), 0.0).unwrap().held
    }

    #[test]
    fn what_grows_by_its_logarithm_or_not_at_all_holds() {
        assert!(held(|_| 600.0));
        assert!(held(|size| 100.0 + 90.0 * size.log2()));
        assert!(held(|size| 600.0 - 20.0 * size.log10()));
        // Wandering.
        assert!(growth(&SIZES, &[600.0, 570.0, 640.0, 650.0], 0.0).unwrap().held);
    }

    #[test]
    fn what_grows_faster_does_not() {
        assert!(!held(|size| 600.0 + size / 1_000.0));
        assert!(!held(|size| 500.0 + size.sqrt()));
        assert!(!held(|size| size.log10().powi(2) * size.sqrt()));
        let line = growth(&SIZES, &SIZES, 0.0).unwrap();
        assert!((line.power - 1.0).abs() < 1e-9 && (line.times - 1e3).abs() < 1e-6, "{line:?}");
        assert_eq!(growth(&SIZES[..2], &[1.0, 2.0], 0.0), None);
        assert_eq!(growth(&SIZES, &[1.0, f64::NAN, 1.0, 1.0], 0.0), None);
    }

    #[test]
    fn bars_are_to_one_scale() {
        let text = bars(&["1".to_owned(), "10".to_owned()], &[10.0, 20.0], "µs");
        let lengths: Vec<usize> = text.lines().map(|line| line.matches('█').count()).collect();
        assert_eq!(lengths, [20, 40]);
        assert!(text.starts_with(" 1 █") && text.ends_with("20.0 µs\n"), "{text}");
    }
}
