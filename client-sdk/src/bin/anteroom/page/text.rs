//! The page on a terminal.

use anteroom_policy::rules::plain::visible;

use super::{Page, Part};
use crate::policy::shown;

/// Width of a line of words.
const WIDTH: usize = 100;

pub(crate) fn render(page: &Page) -> String {
    let mut out = format!("{}\n{}\n", visible(&page.title, false), "=".repeat(page.title.chars().count()));
    for section in &page.sections {
        out.push_str(&format!("\n{}\n{}\n\n", section.title, "-".repeat(section.title.chars().count())));
        for part in &section.parts {
            match part {
                Part::Words(words) => {
                    wrapped(&mut out, "", words);
                    out.push('\n');
                }
                Part::Points(points) => {
                    points.iter().for_each(|point| wrapped(&mut out, "- ", point));
                    out.push('\n');
                }
                Part::Pairs(_, pairs) => {
                    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
                    for (name, value) in pairs {
                        out.push_str(&format!("{name:width$}  {}\n", visible(value, false)));
                    }
                    out.push('\n');
                }
                Part::Table(_, head, rows) => {
                    for row in rows {
                        let cells =
                            head.iter().zip(row).map(|(name, cell)| format!("{name}: {}", visible(cell, false)));
                        wrapped(&mut out, "- ", &cells.collect::<Vec<_>>().join("; "));
                    }
                    out.push('\n');
                }
                // What it shows stands beside it, and what its colours mean is of no use here.
                Part::Drawing(_) => {}
                Part::Rules(rules) => out.push_str(&shown::rules(rules, true)),
            }
        }
    }
    out
}

/// Words in lines; later ones stand below the first one's beginning.
fn wrapped(out: &mut String, lead: &str, words: &str) {
    let gap = " ".repeat(lead.chars().count());
    let mut line = lead.to_owned();
    let mut used = false;
    for word in visible(words, false).split(' ').filter(|word| !word.is_empty()) {
        if used && line.chars().count().saturating_add(word.chars().count()) >= WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line.clone_from(&gap);
        }
        line.push_str(word);
        line.push(' ');
        used = true;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
