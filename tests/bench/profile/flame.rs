//! A flame graph: stacks side by side, each frame as wide as its share, its callees above it. Names stand in `<title>`, which a browser
//! shows under the pointer; `.folded` beside it is what other viewers read.

use std::{collections::BTreeMap, fmt::Write as _};

use super::stacks::Stacks;

/// Pixels.
const WIDTH: f64 = 1_600.0;
const ROW: f64 = 17.0;
const LETTER: f64 = 6.6;
/// What is narrower is left out.
const NARROWEST: f64 = 0.3;

#[derive(Default)]
struct Node<'s> {
    count: u64,
    above: BTreeMap<&'s str, Node<'s>>,
}

impl Node<'_> {
    fn depth(&self) -> usize {
        1 + self.above.values().map(Node::depth).max().unwrap_or(0)
    }
}

/// Draws it.
pub(super) fn draw(title: &str, stacks: &Stacks) -> String {
    let mut root = Node::default();
    for (stack, count) in &stacks.0 {
        root.count += count;
        let mut node = &mut root;
        for frame in stack {
            node = node.above.entry(frame).or_default();
            node.count += count;
        }
    }
    let height = (root.depth() + 1) as f64 * ROW;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"4\" y=\"13\">{}, {} samples</text>\n",
        escaped(title),
        root.count
    );
    let scale = WIDTH / root.count.max(1) as f64;
    level(&mut svg, &root, (0.0, height), scale, root.count);
    svg + "</svg>\n"
}

/// The frames above `node`, whose own row ends at `bottom`.
fn level(svg: &mut String, node: &Node<'_>, (mut left, bottom): (f64, f64), scale: f64, all: u64) {
    for (name, above) in &node.above {
        let width = above.count as f64 * scale;
        if width >= NARROWEST {
            let (top, percent) = (bottom - ROW, above.count as f64 * 100.0 / all as f64);
            // The same name has the same colour in every graph.
            let hue = name.bytes().fold(0_u32, |hue, byte| hue.wrapping_mul(31).wrapping_add(byte.into())) % 50;
            let shown: String = name.chars().take(((width - 4.0) / LETTER).max(0.0) as usize).collect();
            let (name, shown) = (escaped(name), escaped(&shown));
            let _ = writeln!(
                svg,
                "<g><title>{name}, {percent:.2} %</title><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
                 fill=\"hsl({hue},80%,68%)\"/><text x=\"{:.1}\" y=\"{:.1}\">{shown}</text></g>",
                ROW - 1.0,
                left + 2.0,
                bottom - 5.0
            );
            level(svg, above, (left, top), scale, all);
        }
        left += width;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_wide_as_their_share_and_names_cannot_break_out() {
        let text = "w \n\t 1 <a::B as c>::run\n\n".repeat(3) + "w \n\t 2 other\n\n";
        let svg = draw("it", &Stacks::read(&text));
        assert!(
            svg.contains("<title>&lt;a::B as c&gt;::run, 75.00 %</title><rect x=\"0.0\" y=\"34.0\" width=\"1200.0\""),
            "{svg}"
        );
        assert!(svg.contains("<title>w, 100.00 %</title>"));
        assert!(!svg.contains("<a::B"));
    }
}
