//! Rules that sides of this world add to their grants, each beside what it says in plain words of the program.

use anteroom_policy::rules::{ALLOWING_RULE, Side};
use anteroom_proto::rpc::Facts;

/// A rule that refuses.
#[derive(Clone, Copy)]
pub struct Written {
    /// Its name.
    pub id: &'static str,
    /// Its condition in Cedar.
    pub when: &'static str,
    /// What that condition says.
    pub refuses: fn(&Facts) -> bool,
}

/// All of them.
pub const RULES: [Written; 4] = [
    Written { id: "no-seeds", when: "context.seed", refuses: |facts| facts.seed },
    Written { id: "no-streams", when: "context.stream", refuses: |facts| facts.stream },
    Written {
        id: "no-contractors",
        when: "principal.employer == \"contractor\"",
        refuses: |facts| facts.employer == "contractor",
    },
    Written { id: "short", when: "context.tokensAsked > 512", refuses: |facts| facts.tokens_asked > 512 },
];

/// Rules that nobody can use.
pub const UNUSABLE: [&str; 5] = [
    "@id(\"wide\") permit (principal, action, resource);",
    "forbid (principal, action, resource);",
    "@id(\"typo\") forbid (principal, action, resource) when { context.sead };",
    "@id(\"twice\") forbid (principal, action, resource); @id(\"twice\") forbid (principal, action, resource);",
    "not cedar",
];

impl Written {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("@id(\"{}\") forbid (principal, action, resource) when {{ {} }};", self.id, self.when)
    }

    /// The rule of a name.
    #[must_use]
    pub fn named(id: &str) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.id == id)
    }

    /// The rule of a text.
    #[must_use]
    pub fn read(text: &str) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.text() == text)
    }
}

/// The rules of the baseline that refuse a call under this world's terms, all of whose grants lend the same.
#[must_use]
pub fn baseline_refuses(facts: &Facts) -> Vec<&'static str> {
    let refuses = [
        ("engaged", facts.minute >= facts.engaged_until_minute),
        ("logprobs", facts.logprobs > 0),
        ("scan", facts.scan_verdict >= 2),
        ("trained", facts.minute >= facts.trained_until_minute),
    ];
    refuses.into_iter().filter(|(_, refuses)| *refuses).map(|(id, _)| id).collect()
}

/// The rules that a call meets beside the baseline, by side and name.
pub type Met = Vec<(Side, &'static str)>;

/// What the rules say to a call: the names of those that refuse it, sorted, or of the one that allows.
#[must_use]
pub fn says(facts: &Facts, met: &[(Side, &'static str)]) -> (bool, Vec<String>) {
    let against = met.iter().filter(|(_, id)| Written::named(id).is_some_and(|rule| (rule.refuses)(facts)));
    let mut reasons: Vec<String> = against.map(|(side, id)| format!("{}{id}", side.prefix())).collect();
    reasons.extend(baseline_refuses(facts).into_iter().map(str::to_owned));
    reasons.sort_unstable();
    if reasons.is_empty() { (true, vec![ALLOWING_RULE.to_owned()]) } else { (false, reasons) }
}
