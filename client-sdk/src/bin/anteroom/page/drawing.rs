//! Drawings as shapes, which each form of a page draws in its own way.
//!
//! **Invariant:** what a drawing shows stands in words or a table beside it, and no text in one becomes markup.

use super::html::escaped;

/// A drawing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Drawing {
    /// Units across.
    pub(crate) width: i64,
    /// Units down.
    pub(crate) height: i64,
    /// What it shows, for those who do not see it.
    pub(crate) title: String,
    /// What its colours mean.
    pub(crate) caption: String,
    /// What it consists of, the lowest first.
    pub(crate) shapes: Vec<Shape>,
}

/// What a shape stands for, which says how it looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ink {
    /// What was possible.
    Frame,
    /// What went well.
    Done,
    /// What ended otherwise.
    Cut,
    /// What was stopped.
    Held,
}

impl Ink {
    const fn class(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Done => "done",
            Self::Cut => "cut",
            Self::Held => "held",
        }
    }
}

/// A part of a drawing; downward is positive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// A bar: left, top, width, height.
    Bar(Ink, i64, i64, i64, i64),
    /// A ring: centre and radius.
    Ring(Ink, i64, i64, i64),
    /// An upright line: where, its top and its foot.
    Mark(i64, i64, i64),
    /// Words at a base line, to the right of a place or, if so said, to its left.
    Label {
        /// Where.
        x: i64,
        /// Their base line.
        y: i64,
        /// Whether they end there.
        ends: bool,
        /// They.
        text: String,
    },
}

/// The drawing as SVG.
pub(crate) fn svg(drawing: &Drawing) -> String {
    let Drawing { width, height, .. } = drawing;
    let title = escaped(&drawing.title);
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{title}</title>\n");
    for shape in &drawing.shapes {
        svg.push_str(&match shape {
            Shape::Bar(ink, x, y, width, height) => {
                let class = ink.class();
                format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>\n")
            }
            Shape::Ring(ink, x, y, r) => {
                format!("<circle class=\"{}\" cx=\"{x}\" cy=\"{y}\" r=\"{r}\"/>\n", ink.class())
            }
            Shape::Mark(x, top, foot) => {
                format!("<line class=\"mark\" x1=\"{x}\" y1=\"{top}\" x2=\"{x}\" y2=\"{foot}\"/>\n")
            }
            Shape::Label { x, y, ends, text } => {
                let anchor = if *ends { " text-anchor=\"end\"" } else { "" };
                format!("<text x=\"{x}\" y=\"{y}\"{anchor}>{}</text>\n", escaped(text))
            }
        });
    }
    svg.push_str("</svg>\n");
    svg
}
