//! Rules on a terminal: what each does, in English, beside its Cedar.

use anteroom_policy::rules::english::{Does, Rule};

/// Rules as text: identifier, English, and the Cedar if asked for.
pub(crate) fn rules(rules: &[Rule], cedar: bool) -> String {
    let mut text = String::new();
    for rule in rules {
        let does = match rule.does {
            Does::Allow => "allows",
            Does::Refuse => "refuses",
        };
        text.push_str(&format!("{} {does}\n", rule.id));
        if let Some(comment) = &rule.comment {
            text.push_str(&format!("  # {comment}\n"));
        }
        indented(&mut text, &rule.text());
        if let Some(ask) = &rule.ask {
            text.push_str(&format!(
                "  Whoever it refuses is told: {}\n",
                anteroom_policy::rules::plain::visible(ask, false)
            ));
        }
        if rule.has_cedar() {
            text.push_str("  Some of this is Cedar, for want of words: have it explained before you sign.\n");
        }
        if cedar {
            text.push_str("  Cedar:\n");
            indented(&mut text, &rule.cedar);
        }
        text.push('\n');
    }
    text
}

fn indented(text: &mut String, lines: &str) {
    for line in lines.lines() {
        text.push_str(&format!("    {line}\n"));
    }
}
