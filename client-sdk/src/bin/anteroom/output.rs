//! What goes to standard output: aligned tables for people, JSON for programs, nothing else.
//!
//! **Invariant:** a closed pipe is an end, not an error; and no text that came from elsewhere can move a terminal's cursor.

use std::io::{self, IsTerminal, Write};

use anteroom_proto::{
    names::{Digest, GrantId, OrgId},
    time::At,
};
use clap::ValueEnum;
use serde::Serialize;

use crate::fail::Fail;

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Table,
    /// One JSON value.
    Json,
    /// One JSON value a line.
    Jsonl,
}

/// Something that is shown as a row or, alone, as lines of name and value. Field names are those of its JSON.
pub(crate) trait View: Serialize {
    /// The fields' names.
    const HEAD: &'static [&'static str];

    /// The fields' texts.
    fn cells(&self) -> Vec<String>;
}

/// Declares a struct that is shown; its documented fields are its JSON fields and its columns.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, serde::Serialize)]
        pub(crate) struct $name {
            $($(#[$field_doc])* pub(crate) $field: $type,)*
        }

        impl crate::output::View for $name {
            const HEAD: &'static [&'static str] = &[$(stringify!($field)),*];

            fn cells(&self) -> Vec<String> {
                vec![$(crate::output::Cell::cell(&self.$field)),*]
            }
        }
    };
}
pub(crate) use view;

/// A value in a table.
pub(crate) trait Cell {
    /// Its text.
    fn cell(&self) -> String;
}

macro_rules! cells {
    ($($type:ty),*) => {
        $(impl Cell for $type {
            fn cell(&self) -> String {
                clean(&self.to_string())
            }
        })*
    };
}
cells!(String, bool, u32, u64, i64, usize, When, Digest, GrantId, OrgId);

impl<T: Cell> Cell for Option<T> {
    fn cell(&self) -> String {
        self.as_ref().map_or_else(|| "-".to_owned(), Cell::cell)
    }
}

impl Cell for Vec<String> {
    fn cell(&self) -> String {
        if self.is_empty() { "-".to_owned() } else { clean(&self.join(" ")) }
    }
}

/// An instant as results show it: RFC 3339, in JSON, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct When(At);

impl From<When> for At {
    fn from(when: When) -> Self {
        when.0
    }
}
impl From<At> for When {
    fn from(at: At) -> Self {
        Self(at)
    }
}
impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl Serialize for When {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// Takes control characters out, so that a text cannot pass for something that this command said.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Where results go.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    bold: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let bold = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { format, bold }
    }

    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// Shows many.
    pub(crate) fn rows<V: View>(&self, rows: &[V]) -> Result<(), Fail> {
        match self.format {
            Format::Table => self.table(V::HEAD, &rows.iter().map(View::cells).collect::<Vec<_>>()),
            Format::Json => self.line(&json(serde_json::to_string_pretty(rows))?),
            Format::Jsonl => rows.iter().try_for_each(|row| self.line(&json(serde_json::to_string(row))?)),
        }
    }

    /// Shows many in JSON, whatever was asked for; for what has too much to say for a table.
    pub(crate) fn values(&self, rows: &[impl Serialize]) -> Result<(), Fail> {
        match self.format {
            Format::Table | Format::Json => self.line(&json(serde_json::to_string_pretty(rows))?),
            Format::Jsonl => rows.iter().try_for_each(|row| self.line(&json(serde_json::to_string(row))?)),
        }
    }

    /// Shows one.
    pub(crate) fn one<V: View>(&self, view: &V) -> Result<(), Fail> {
        match self.format {
            Format::Table => {
                let names = V::HEAD.iter().map(|name| (*name).to_owned());
                self.pairs(&names.zip(view.cells()).collect::<Vec<_>>())
            }
            Format::Json => self.line(&json(serde_json::to_string_pretty(view))?),
            Format::Jsonl => self.line(&json(serde_json::to_string(view))?),
        }
    }

    /// Shows lines of name and value; in JSON, `view`.
    pub(crate) fn told(&self, pairs: &[(String, String)], view: &impl Serialize) -> Result<(), Fail> {
        match self.format {
            Format::Table => self.pairs(pairs),
            Format::Json => self.line(&json(serde_json::to_string_pretty(view))?),
            Format::Jsonl => self.line(&json(serde_json::to_string(view))?),
        }
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<(), Fail> {
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in pairs {
            text.push_str(&format!("{}  {value}\n", self.strong(&format!("{name:width$}"))));
        }
        self.raw(text.as_bytes())
    }

    fn table(&self, head: &[&str], rows: &[Vec<String>]) -> Result<(), Fail> {
        let mut widths: Vec<usize> = head.iter().map(|name| name.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let aligned = |cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let mut text = self.strong(&aligned(&mut head.iter().copied()).to_uppercase());
        text.push('\n');
        for row in rows {
            text.push_str(&aligned(&mut row.iter().map(String::as_str)));
            text.push('\n');
        }
        self.raw(text.as_bytes())
    }

    fn strong(&self, text: &str) -> String {
        if self.bold { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Writes a line as it is.
    pub(crate) fn line(&self, text: &str) -> Result<(), Fail> {
        let mut out = io::stdout().lock();
        Ok(writeln!(out, "{text}").and_then(|()| out.flush())?)
    }

    /// Writes bytes as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Fail> {
        let mut out = io::stdout().lock();
        Ok(out.write_all(bytes).and_then(|()| out.flush())?)
    }

    /// Writes words of a model: as they are into a file or pipe, without control characters on a terminal.
    pub(crate) fn words(&self, text: &str) -> Result<(), Fail> {
        if io::stdout().is_terminal() {
            let kept: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
            self.raw(kept.as_bytes())
        } else {
            self.raw(text.as_bytes())
        }
    }

    /// Says something on standard error that is no result.
    pub(crate) fn note(&self, text: &str) {
        // Whoever closed standard error does not want to read it.
        writeln!(io::stderr().lock(), "{text}").ok();
    }
}

fn json(text: serde_json::Result<String>) -> Result<String, Fail> {
    text.map_err(|error| Fail::Local(format!("the result cannot be written as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        let reason = "fine\u{1b}[2K\rpinned".to_owned();
        assert_eq!(reason.cell(), "fine [2K pinned");
    }

    #[test]
    fn what_is_absent_is_a_dash() {
        assert_eq!(None::<String>.cell(), "-");
        assert_eq!(Vec::<String>::new().cell(), "-");
    }
}
