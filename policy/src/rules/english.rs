//! Rules in plain English, generated from the rules themselves, for whoever signs them.
//!
//! **Invariant:** the English is a function of the parsed rule alone: a comment cannot change it, and no part of a condition is
//! left out. What has no words here is shown as Cedar and marked as such. Cedar's `permit` reads *allow*, its `forbid` *refuse*.

pub(super) mod expr;
pub(super) mod words;

use cedar_policy::{Effect, Policy};
use serde::Serialize;
use serde_json::{Value, json};

use self::expr::{ALL, Node, entity, holds};
use super::{ADDED_PREFIX, BASELINE, RulesError, engine::read, plain::visible};

/// What a rule does to a call that it applies to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Does {
    /// It lets the call pass, unless another rule refuses.
    Allow,
    /// It refuses the call, whatever any other rule says.
    Refuse,
}

/// A line of English.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// How deep it is nested; 0 is the rule's own sentence.
    pub depth: usize,
    /// Its letter or number, such as `(a)`; empty at depth 0.
    pub label: String,
    /// What it says.
    pub text: String,
    /// Whether some of it is Cedar, for want of words.
    pub cedar: bool,
}

/// A rule, to be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Rule {
    /// Its identifier as reasons name it.
    pub id: String,
    /// What it does.
    pub does: Does,
    /// What it says, generated.
    pub english: Vec<Line>,
    /// What whoever wrote the baseline says about it. Rules that a lab adds have none: their comments are not what is signed.
    pub comment: Option<String>,
    /// The text of its `@ask`, if it has one.
    pub ask: Option<String>,
    /// Its text in Cedar.
    pub cedar: String,
}

impl Rule {
    /// The English as text, indented.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Line { depth, label, text: says, .. } in &self.english {
            let gap = if label.is_empty() { "" } else { " " };
            text.push_str(&format!("{}{label}{gap}{says}\n", "    ".repeat(*depth)));
        }
        text
    }

    /// Whether some of the English is Cedar.
    #[must_use]
    pub fn has_cedar(&self) -> bool {
        self.english.iter().any(|line| line.cedar)
    }
}

/// The baseline's rules in its order.
///
/// # Errors
/// None with the baseline that is compiled in; a test reads it.
pub fn baseline() -> Result<Vec<Rule>, RulesError> {
    let mut rules: Vec<Rule> = read(BASELINE, "")?.iter().map(rule).collect();
    for rule in &mut rules {
        rule.comment = comment(&rule.id);
    }
    Ok(rules)
}

/// Rules that a lab adds, in their order.
///
/// # Errors
/// The text is not what the engine takes as rules; whether they hold against the schema is not asked here.
pub fn added(text: &str) -> Result<Vec<Rule>, RulesError> {
    Ok(read(text, ADDED_PREFIX)?.iter().map(rule).collect())
}

/// One rule. Total.
pub(super) fn rule(policy: &Policy) -> Rule {
    let does = match policy.effect() {
        Effect::Permit => Does::Allow,
        Effect::Forbid => Does::Refuse,
    };
    let mut english = Vec::new();
    match policy.to_json() {
        Ok(json) => sentence(does, &json, &mut english),
        Err(_) => english.push(Line {
            depth: 0,
            label: String::new(),
            text: "The engine cannot take this rule apart; read its Cedar.".to_owned(),
            cedar: true,
        }),
    }
    Rule {
        id: policy.id().to_string(),
        does,
        english,
        comment: None,
        ask: policy.annotation("ask").map(str::to_owned),
        cedar: visible(&policy.to_string(), true),
    }
}

fn sentence(does: Does, json: &Value, lines: &mut Vec<Line>) {
    let verb = match does {
        Does::Allow => "Allow",
        Does::Refuse => "Refuse",
    };
    let mut cedar = false;
    let mut scope = |part: &str, words: fn(&Value) -> Option<String>, otherwise: &str| {
        json.get(part).and_then(words).unwrap_or_else(|| {
            cedar = true;
            otherwise.to_owned()
        })
    };
    let calls = scope("action", calls, " call of the kind that `action` in the Cedar text names");
    let person = scope("principal", person, " by whom `principal` in the Cedar text names");
    let grant = scope("resource", grant, " under what `resource` in the Cedar text names");
    let opening = format!("{verb} every{calls}{person}{grant}");
    let conditions = json.get("conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let clause = |condition: &Value| {
        let kind = condition.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        (kind, condition.get("body").cloned().unwrap_or(Value::Null))
    };
    let clauses: Vec<(String, Value)> = conditions.iter().map(clause).collect();
    let (joint, node) = match clauses.as_slice() {
        [] => return lines.push(Line { depth: 0, label: String::new(), text: format!("{opening}."), cedar }),
        [(kind, body)] if kind == "unless" => (" unless", holds(body, true)),
        [(kind, body)] if kind == "when" => (" when", holds(body, true)),
        many => {
            let items = many.iter().map(|(kind, body)| holds(body, kind != "unless"));
            (" when", Node::List { intro: ALL.to_owned(), items: items.collect() })
        }
    };
    write(&node, 0, "", &format!("{opening}{joint}"), lines);
    if let Some(first) = lines.first_mut() {
        first.cedar |= cedar;
    }
    if let Some(last) = lines.last_mut() {
        last.text = format!("{}.", last.text.trim_end_matches(';'));
    }
}

/// Writes a condition: one sentence behind what goes before it, or a list below it.
fn write(node: &Node, depth: usize, label: &str, before: &str, lines: &mut Vec<Line>) {
    let gap = if before.is_empty() { "" } else { " " };
    let mut line = |text: String, cedar: bool| lines.push(Line { depth, label: label.to_owned(), text, cedar });
    match node {
        Node::Says { text, cedar } => line(format!("{before}{gap}{text};"), *cedar),
        Node::List { intro, items } => match items.as_slice() {
            [one] => write(one, depth, label, &format!("{before}{gap}{intro}"), lines),
            many => {
                line(format!("{before}{gap}{intro}:"), false);
                for (place, item) in many.iter().enumerate() {
                    write(item, depth.saturating_add(1), &numbered(depth, place), "", lines);
                }
            }
        },
    }
}

/// Labels as lawyers number: (a), (i), (1), (A), and again.
fn numbered(depth: usize, place: usize) -> String {
    let letters = |first: u8| {
        // Beyond z come aa, bb.
        let (round, letter) = (place / 26, u8::try_from(place % 26).unwrap_or(0));
        char::from(first.saturating_add(letter)).to_string().repeat(round.saturating_add(1))
    };
    let text = match depth % 4 {
        0 => letters(b'a'),
        1 => roman(place.saturating_add(1)),
        2 => place.saturating_add(1).to_string(),
        _ => letters(b'A'),
    };
    format!("({text})")
}

fn roman(mut number: usize) -> String {
    let steps = [(100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")];
    let mut text = String::new();
    for (value, letters) in steps {
        while number >= value {
            text.push_str(letters);
            number = number.saturating_sub(value);
        }
    }
    text
}

/// What a part of a rule's scope asks for.
struct Scope<'a> {
    operator: &'a str,
    kind: Option<&'a str>,
    entities: Vec<(&'a str, &'a str)>,
    within: Option<(&'a str, &'a str)>,
}

impl<'a> Scope<'a> {
    fn read(given: &'a Value) -> Option<Self> {
        let uid = |value: &'a Value| Some((value.get("type")?.as_str()?, value.get("id")?.as_str()?));
        let entities = match (given.get("entity"), given.get("entities")) {
            (Some(one), None) => vec![uid(one)?],
            (None, Some(many)) => many.as_array()?.iter().map(uid).collect::<Option<_>>()?,
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => return None,
        };
        let within = match given.get("in") {
            Some(group) => Some(uid(group.get("entity")?)?),
            None => None,
        };
        let kind = given.get("entity_type").and_then(Value::as_str);
        Some(Self { operator: given.get("op")?.as_str()?, kind, entities, within })
    }
}

fn calls(given: &Value) -> Option<String> {
    let name = |(kind, id): &(&str, &str)| match (*kind, *id) {
        ("Action", "Chat") => Some("chat call"),
        ("Action", "Completions") => Some("completions call"),
        ("Action", "Embeddings") => Some("embeddings call"),
        ("Action", "Responses") => Some("call of the responses route"),
        ("Action", "Messages") => Some("call of the messages route"),
        ("Action", "Infer") => Some(EVERY_CALL),
        _ => None,
    };
    let scope = Scope::read(given)?;
    let names = scope.entities.iter().map(name).collect::<Option<Vec<_>>>()?;
    match (scope.operator, names.as_slice()) {
        ("All", []) => Some(format!(" {EVERY_CALL}")),
        ("in", [_, ..]) if names.contains(&EVERY_CALL) => Some(format!(" {EVERY_CALL}")),
        ("==" | "in", [_, ..]) if !names.contains(&EVERY_CALL) => Some(format!(" {}", names.join(" and every "))),
        _ => None,
    }
}

const EVERY_CALL: &str = "call";

fn person(given: &Value) -> Option<String> {
    whose(given, "Person", " by", "whoever")
}

fn grant(given: &Value) -> Option<String> {
    whose(given, "Grant", " under", "a grant that")
}

fn whose(given: &Value, expected: &str, joint: &str, any: &str) -> Option<String> {
    let Scope { operator, kind, entities, within } = Scope::read(given)?;
    if kind.is_some_and(|kind| kind != expected) {
        return None;
    }
    let belongs = |(kind, id): (&str, &str)| Some(format!("{joint} {any} is, or belongs to, {}", entity(kind, id)));
    match (operator, entities.as_slice(), within) {
        ("All" | "is", [], None) => Some(String::new()),
        ("==", [(kind, id)], None) => Some(format!("{joint} {}", entity(kind, id))),
        ("in", [group], None) => belongs(*group),
        ("is", [], Some(group)) => belongs(group),
        _ => None,
    }
}

/// Rules whose comment is about them alone; those after them are of the group before.
const ALONE: &[&str] = &["extraction"];

/// The comment above a rule of the baseline, or above the group that it stands in.
fn comment(id: &str) -> Option<String> {
    let (mut words, mut before) = (Vec::new(), Vec::new());
    let mut goes_on = false;
    for line in BASELINE.lines() {
        if let Some(text) = line.strip_prefix("//") {
            if !goes_on {
                before = std::mem::take(&mut words);
            }
            words.push(text.trim());
        }
        goes_on = line.starts_with("//");
        let mark = line.trim().strip_prefix("@id(\"").and_then(|rest| rest.strip_suffix("\")"));
        if mark == Some(id) {
            return Some(words.join(" "));
        }
        if mark.is_some_and(|mark| ALONE.contains(&mark)) {
            words.clone_from(&before);
        }
    }
    None
}

/// The Cedar text of an expression; its JSON, should the engine not write it.
fn cedar_text(expr: &Value) -> String {
    let all = json!({"op": "All"});
    let whole = json!({
        "effect": "forbid", "principal": all, "action": all, "resource": all,
        "conditions": [{"kind": "when", "body": expr}],
    });
    let text = Policy::from_json(None, whole).ok().and_then(|policy| policy.to_cedar());
    let body = text.as_deref().and_then(|text| {
        let (_, behind) = text.split_once("when {")?;
        behind.rsplit_once('}').map(|(body, _)| body.trim().to_owned())
    });
    visible(&body.unwrap_or_else(|| expr.to_string()), false)
}

#[cfg(test)]
mod tests;
