//! Tables for people, JSON for machines.

use std::{fs, path::Path};

use serde_json::Value;

use super::Fallible;

/// A Markdown table.
#[derive(Clone, Debug)]
pub struct Table {
    lines: String,
}

impl Table {
    /// With these columns; the first one is text, the others are numbers.
    pub fn new(columns: &[&str]) -> Self {
        let rule: Vec<&str> = (0..columns.len()).map(|place| if place == 0 { "---" } else { "--:" }).collect();
        Self { lines: format!("| {} |\n| {} |\n", columns.join(" | "), rule.join(" | ")) }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.lines.push_str(&format!("| {} |\n", cells.join(" | ")));
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.lines
    }
}

/// A number with about three digits that mean something.
pub fn round(number: f64) -> String {
    match number.abs() {
        _ if !number.is_finite() => "–".to_owned(),
        size if size >= 100.0 => {
            let whole = format!("{number:.0}");
            let (sign, digits) = whole.strip_prefix('-').map_or(("", whole.as_str()), |digits| ("-", digits));
            let mut out = String::from(sign);
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place) % 3 == 0 {
                    out.push(',');
                }
                out.push(digit);
            }
            out
        }
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// Writes `name.json` and `name.md`.
pub fn write(folder: &Path, name: &str, text: &str, data: &Value) -> Fallible<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("{name}.md")), text)?;
    let mut data = serde_json::to_string_pretty(data)?;
    data.push('\n');
    Ok(fs::write(folder.join(format!("{name}.json")), data)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [0.123, 1.0, 12.34, 999.6, 1234.4, -1_234_567.0, f64::NAN].map(round);
        assert_eq!(shown, ["0.12", "1.00", "12.3", "1,000", "1,234", "-1,234,567", "–"]);
    }
}
