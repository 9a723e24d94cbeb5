//! A report's drawings: a grant's time line, its days as bars, and how long things took.

use anteroom_proto::time::At;
use anteroom_sdk::{
    report::{GrantReport, LockSaid, Part, REST},
    spread::Spread,
};

use crate::page::drawing::{Drawing, Ink, Shape};

/// Units across a drawing.
const WIDTH: i64 = 960;
/// Space on each side.
const EDGE: i64 = 8;
/// Most days that are drawn, the newest.
pub(crate) const DAYS_MAX: usize = 62;
/// Units that the highest bar has.
const HEIGHT: u64 = 100;

/// The time line of a grant whose window is fixed; nothing otherwise.
pub(crate) fn time_line(grant: &GrantReport, locks: &[LockSaid]) -> Option<Drawing> {
    let (start, end) = (grant.start?.0, grant.end?.0);
    let place = |at: At| {
        let (whole, part) = (end.since(start).max(1), at.since(start).clamp(0, end.since(start).max(1)));
        EDGE.saturating_add(part.saturating_mul(WIDTH - 2 * EDGE) / whole)
    };
    let over = grant.ended.as_ref().map_or(end, |ended| ended.cut.0.min(end));
    let span = |ink, from: At, to: At| {
        let (left, right) = (place(from), place(to));
        Shape::Bar(ink, left, 24, right.saturating_sub(left).max(2), 20)
    };
    let mut shapes = vec![span(Ink::Frame, start, end), span(Ink::Done, start, over)];
    for pause in &grant.pauses {
        shapes.push(span(Ink::Held, pause.at.0, pause.ended.map_or(over, |ended| ended.0)));
    }
    let mut mark = |at: At, top: i64, label: &str| {
        let x = place(at);
        shapes.push(Shape::Mark(x, top, 48));
        let y = if top < 20 { 14 } else { 62 };
        shapes.push(Shape::Label { x, y, ends: x > WIDTH / 2, text: label.to_owned() });
    };
    mark(start, 24, &start.to_string());
    mark(end, 24, &end.to_string());
    if let Some(ended) = &grant.ended {
        mark(over, 18, ended.how);
    }
    let own = grant.grant.to_string();
    let rings = locks.iter().filter(|lock| lock.scope == own);
    shapes.extend(rings.map(|lock| Shape::Ring(Ink::Cut, place(lock.at.0), 34, 6)));
    let caption = "The window; filled while access lasted, in another colour while it was paused; rings are locks on record in the \
                   grant.";
    Some(Drawing {
        width: WIDTH,
        height: 74,
        title: format!("From {start} to {end}, ended at {over}"),
        caption: caption.to_owned(),
        shapes,
    })
}

/// The newest days as bars: completed calls, calls that ended otherwise, refusals.
pub(crate) fn days(grant: &GrantReport) -> Option<Drawing> {
    let all: Vec<_> = grant.days.iter().filter(|day| day.of != REST).collect();
    let shown = all.get(all.len().saturating_sub(DAYS_MAX)..).unwrap_or_default();
    let (first, last) = (shown.first()?, shown.last()?);
    let high = |day: &Part| day.sums.calls.saturating_add(day.sums.refusals);
    let most = shown.iter().map(|day| high(day)).max().unwrap_or(0).max(1);
    let step = step(shown.len());
    let mut shapes = Vec::new();
    for (number, day) in (0_i64..).zip(shown) {
        let x = EDGE.saturating_add(number.saturating_mul(step));
        let other = day.sums.calls.saturating_sub(day.sums.completed);
        let stack = [(Ink::Done, day.sums.completed), (Ink::Cut, other), (Ink::Held, day.sums.refusals)];
        stacked(&mut shapes, x, step, most, &stack);
    }
    shapes.push(label(EDGE, 12, most.to_string()));
    shapes.push(label(EDGE, 134, first.of.clone()));
    if shown.len() > 1 {
        shapes.push(Shape::Label { x: WIDTH - EDGE, y: 134, ends: true, text: last.of.clone() });
    }
    let caption = format!(
        "Calls and refusals a day (UTC), the newest {DAYS_MAX} days with any: filled are completed calls, outlined those that \
         ended otherwise, the third colour refusals. The table below says the same."
    );
    let title = format!("Calls and refusals a day, at most {most}");
    Some(Drawing { width: WIDTH, height: 140, title, caption, shapes })
}

/// How long something took, as bars of how many there were; nothing if there were none.
pub(crate) fn spread(what: &str, spread: &Spread) -> Option<Drawing> {
    let bars = spread.bars();
    let first = bars.iter().position(|bar| bar.count > 0)?;
    let last = bars.iter().rposition(|bar| bar.count > 0)?;
    // A bar on each side keeps a single one from looking like all there could be.
    let shown = bars.get(first.saturating_sub(1)..last.saturating_add(2).min(bars.len())).unwrap_or_default();
    let most = shown.iter().map(|bar| bar.count).max().unwrap_or(0).max(1);
    let step = step(shown.len()).min(120);
    let mut shapes = Vec::new();
    for (number, bar) in (0_i64..).zip(shown) {
        let x = EDGE.saturating_add(number.saturating_mul(step));
        stacked(&mut shapes, x, step, most, &[(Ink::Done, bar.count)]);
        if bar.count > 0 {
            let top = 112 - i64::try_from(bar.count.saturating_mul(HEIGHT) / most).unwrap_or(0);
            shapes.push(label(x, top, bar.count.to_string()));
        }
        shapes.push(label(x, 134, bar.words()));
    }
    let title = format!("{what}: {} measured, {}", spread.count(), spread.words());
    let caption = format!("{what}; each bar counts those that took so long. The table below says the same.");
    Some(Drawing { width: WIDTH, height: 140, title, caption, shapes })
}

/// Room for each of so many bars.
fn step(bars: usize) -> i64 {
    (WIDTH - 2 * EDGE) / i64::try_from(bars).unwrap_or(1).max(1)
}

const fn label(x: i64, y: i64, text: String) -> Shape {
    Shape::Label { x, y, ends: false, text }
}

/// Bars on top of each other.
fn stacked(shapes: &mut Vec<Shape>, x: i64, step: i64, most: u64, stack: &[(Ink, u64)]) {
    let width = step.saturating_sub(2).clamp(1, 48);
    let mut base = 116_u64;
    for (ink, count) in stack {
        let tall = count.saturating_mul(HEIGHT) / most;
        let tall = if *count > 0 { tall.max(1) } else { continue };
        base = base.saturating_sub(tall);
        let (y, tall) = (i64::try_from(base).unwrap_or(0), i64::try_from(tall).unwrap_or(0));
        shapes.push(Shape::Bar(*ink, x, y, width, tall));
    }
}
