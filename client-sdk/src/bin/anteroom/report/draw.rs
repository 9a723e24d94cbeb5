//! A report's drawings: a grant's time line, and its days as bars.
//!
//! **Invariant:** what a drawing shows stands in words or a table beside it, and no text in it is left unescaped.

use anteroom_proto::time::At;
use anteroom_sdk::report::{GrantReport, LockSaid, Part, REST};

use crate::page::html::escaped;

/// Units across a drawing.
const WIDTH: i64 = 960;
/// Space on each side.
const EDGE: i64 = 8;
/// Most days that are drawn, the newest.
pub(crate) const DAYS_MAX: usize = 62;
/// Units that the highest bar has.
const HEIGHT: u64 = 100;

/// The time line of a grant whose window is fixed; nothing otherwise.
pub(crate) fn time_line(grant: &GrantReport, locks: &[LockSaid]) -> Option<String> {
    let (start, end) = (grant.start?.0, grant.end?.0);
    let place = |at: At| {
        let (whole, part) = (end.since(start).max(1), at.since(start).clamp(0, end.since(start).max(1)));
        EDGE.saturating_add(part.saturating_mul(WIDTH - 2 * EDGE) / whole)
    };
    let over = grant.ended.as_ref().map_or(end, |ended| ended.cut.0.min(end));
    let title = escaped(&format!("From {start} to {end}, ended at {over}"));
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} 74\" role=\"img\">\n<title>{title}</title>\n");
    let span = |class: &str, from: At, to: At| {
        let (left, right) = (place(from), place(to));
        let width = right.saturating_sub(left).max(2);
        format!("<rect class=\"{class}\" x=\"{left}\" y=\"24\" width=\"{width}\" height=\"20\"/>\n")
    };
    svg.push_str(&span("frame", start, end));
    svg.push_str(&span("done", start, over));
    for pause in &grant.pauses {
        svg.push_str(&span("held", pause.at.0, pause.ended.map_or(over, |ended| ended.0)));
    }
    let mut mark = |at: At, top: i64, label: &str| {
        let x = place(at);
        svg.push_str(&format!("<line class=\"mark\" x1=\"{x}\" y1=\"{top}\" x2=\"{x}\" y2=\"48\"/>\n"));
        let anchor = if x > WIDTH / 2 { "end" } else { "start" };
        let y = if top < 20 { 14 } else { 62 };
        svg.push_str(&format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>\n", escaped(label)));
    };
    mark(start, 24, &start.to_string());
    mark(end, 24, &end.to_string());
    if let Some(ended) = &grant.ended {
        mark(over, 18, ended.how);
    }
    let own = grant.grant.to_string();
    for lock in locks.iter().filter(|lock| lock.scope == own) {
        let x = place(lock.at.0);
        svg.push_str(&format!("<circle class=\"cut\" cx=\"{x}\" cy=\"34\" r=\"6\"/>\n"));
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The newest days as bars: completed calls, calls that ended otherwise, refusals.
pub(crate) fn days(grant: &GrantReport) -> Option<String> {
    let all: Vec<_> = grant.days.iter().filter(|day| day.of != REST).collect();
    let shown = all.get(all.len().saturating_sub(DAYS_MAX)..).unwrap_or_default();
    let (first, last) = (shown.first()?, shown.last()?);
    let high = |day: &Part| day.sums.calls.saturating_add(day.sums.refusals);
    let most = shown.iter().map(|day| high(day)).max().unwrap_or(0).max(1);
    let step = (WIDTH - 2 * EDGE) / i64::try_from(shown.len()).unwrap_or(1).max(1);
    let title = escaped(&format!("Calls and refusals a day, at most {most}"));
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} 140\" role=\"img\">\n<title>{title}</title>\n");
    for (number, day) in (0_i64..).zip(shown) {
        let x = EDGE.saturating_add(number.saturating_mul(step));
        let width = step.saturating_sub(2).clamp(1, 48);
        let mut base = 116_u64;
        let other = day.sums.calls.saturating_sub(day.sums.completed);
        for (class, count) in [("done", day.sums.completed), ("cut", other), ("held", day.sums.refusals)] {
            let tall = count.saturating_mul(HEIGHT) / most;
            let tall = if count > 0 { tall.max(1) } else { continue };
            base = base.saturating_sub(tall);
            svg.push_str(&format!(
                "<rect class=\"{class}\" x=\"{x}\" y=\"{base}\" width=\"{width}\" height=\"{tall}\"/>\n"
            ));
        }
    }
    svg.push_str(&format!("<text x=\"{EDGE}\" y=\"12\">{most}</text>\n"));
    svg.push_str(&format!("<text x=\"{EDGE}\" y=\"134\">{}</text>\n", escaped(&first.of)));
    if shown.len() > 1 {
        let x = WIDTH - EDGE;
        svg.push_str(&format!("<text x=\"{x}\" y=\"134\" text-anchor=\"end\">{}</text>\n", escaped(&last.of)));
    }
    svg.push_str("</svg>\n");
    Some(svg)
}
