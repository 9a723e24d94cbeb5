//! The page as one HTML file that needs nothing else.
//!
//! **Invariant:** no script, nothing fetched, and no text from terms that is not escaped; the page's own policy forbids both to a
//! browser as well.

use anteroom_policy::rules::{
    english::{Does, Line, Rule},
    plain::visible,
};
use anteroom_proto::names::Digest;
use data_encoding::BASE64;

use super::{Page, Part, Section, drawing::svg};

const STYLE: &str = include_str!("style.css");

pub(crate) fn render(page: &Page) -> String {
    let style = BASE64.encode(Digest::of(STYLE.as_bytes()).as_bytes());
    let title = escaped(&page.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\" dir=\"ltr\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{style}'; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n\
         <nav aria-label=\"Contents\"><ul>\n"
    );
    for section in &page.sections {
        out.push_str(&format!("<li><a href=\"#{}\">{}</a></li>\n", section.id, escaped(&section.title)));
    }
    out.push_str("</ul></nav>\n</header>\n<main>\n");
    page.sections.iter().for_each(|part| section(&mut out, part));
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn section(out: &mut String, section: &Section) {
    let id = &section.id;
    out.push_str(&format!("<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{}</h2>\n", escaped(&section.title)));
    for part in &section.parts {
        match part {
            Part::Words(words) => out.push_str(&format!("<p>{}</p>\n", escaped(words))),
            Part::Points(points) => {
                let points: String = points.iter().map(|point| format!("<li>{}</li>\n", escaped(point))).collect();
                out.push_str(&format!("<ul>\n{points}</ul>\n"));
            }
            Part::Pairs(caption, pairs) => {
                out.push_str(&format!("<table class=\"pairs\">\n<caption>{}</caption>\n<tbody>\n", escaped(caption)));
                for (name, value) in pairs {
                    out.push_str(&format!(
                        "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n",
                        escaped(name),
                        foreign(value)
                    ));
                }
                out.push_str("</tbody>\n</table>\n");
            }
            Part::Table(caption, head, rows) => {
                let head: String =
                    head.iter().map(|name| format!("<th scope=\"col\">{}</th>", escaped(name))).collect();
                out.push_str(&format!(
                    "<table>\n<caption>{}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n",
                    escaped(caption)
                ));
                for row in rows {
                    let cells: String = row.iter().map(|cell| format!("<td>{}</td>", foreign(cell))).collect();
                    out.push_str(&format!("<tr>{cells}</tr>\n"));
                }
                out.push_str("</tbody>\n</table>\n");
            }
            Part::Rules(rules) => rules.iter().for_each(|part| rule(out, part)),
            Part::Drawing(drawing) => {
                let (svg, words) = (svg(drawing), escaped(&drawing.caption));
                out.push_str(&format!("<figure>\n{svg}<figcaption>{words}</figcaption>\n</figure>\n"));
            }
        }
    }
    out.push_str("</section>\n");
}

fn rule(out: &mut String, rule: &Rule) {
    let does = match rule.does {
        Does::Allow => "allows",
        Does::Refuse => "refuses",
    };
    // An identifier is lower-case letters, digits and hyphens, with `lab/` before it for the lab's.
    let id = format!("rule-{}", escaped(&rule.id).replace('/', "."));
    out.push_str(&format!(
        "<article class=\"rule\" aria-labelledby=\"{id}\">\n<h3 id=\"{id}\">{} <small>{does}</small></h3>\n",
        escaped(&rule.id)
    ));
    if let Some(comment) = &rule.comment {
        out.push_str(&format!("<p class=\"why\">{}</p>\n", foreign(comment)));
    }
    out.push_str("<div class=\"sides\">\n<div>\n");
    law(out, &rule.english);
    if rule.has_cedar() {
        out.push_str(
            "<p class=\"mark\">Some of this is Cedar, for want of words: have it explained before you sign.</p>\n",
        );
    }
    if let Some(ask) = &rule.ask {
        out.push_str(&format!("<p>Whoever it refuses is told: {}</p>\n", foreign(ask)));
    }
    out.push_str(&format!(
        "</div>\n<pre dir=\"ltr\" aria-label=\"Cedar text\"><code>{}</code></pre>\n</div>\n</article>\n",
        escaped_lines(&rule.cedar)
    ));
}

/// Lines as nested lists.
fn law(out: &mut String, lines: &[Line]) {
    let mut depth = 0_usize;
    out.push_str("<ul class=\"law\">\n");
    for (place, line) in lines.iter().enumerate() {
        if line.depth > depth {
            out.push_str("\n<ul>\n");
        } else if place > 0 {
            out.push_str("</li>\n");
        }
        for _ in line.depth..depth {
            out.push_str("</ul>\n</li>\n");
        }
        depth = line.depth;
        let class = if line.cedar { " class=\"mark\"" } else { "" };
        let label = if line.label.is_empty() {
            String::new()
        } else {
            format!("<span class=\"label\">{}</span> ", escaped(&line.label))
        };
        out.push_str(&format!("<li{class}>{label}{}", foreign(&line.text)));
    }
    out.push_str("</li>\n");
    for _ in 0..depth {
        out.push_str("</ul>\n</li>\n");
    }
    out.push_str("</ul>\n");
}

/// Text from terms: escaped, and kept from changing the order of what stands round it.
fn foreign(text: &str) -> String {
    format!("<bdi dir=\"ltr\">{}</bdi>", escaped(text))
}

pub(crate) fn escaped(text: &str) -> String {
    escape(&visible(text, false))
}

fn escaped_lines(text: &str) -> String {
    escape(&visible(text, true))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
