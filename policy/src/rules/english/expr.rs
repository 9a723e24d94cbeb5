//! Conditions in words: from the engine's JSON of an expression to sentences and lists of sentences.
//!
//! **Invariant:** total and complete. What has no words here is shown as its Cedar text and marked; nothing is left out, and
//! nothing recurses further than [`DEPTH_MAX`].

use serde_json::{Map, Value};

use super::{
    cedar_text,
    words::{Kind, Order, Owner, Says, Unit, number, order, word},
};
use crate::rules::{EXPRESSION_DEPTH_MAX, plain::quoted};

/// Deepest nesting that is put into words; what is deeper is shown as Cedar.
const DEPTH_MAX: usize = EXPRESSION_DEPTH_MAX + 8;

/// A condition in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Node {
    /// One sentence; `cedar` if any of it is Cedar.
    Says { text: String, cedar: bool },
    /// A list under the words that introduce it.
    List { intro: String, items: Vec<Node> },
}

/// A value in words.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Phrase {
    text: String,
    kind: Option<Kind>,
    cedar: bool,
}

pub(super) const ALL: &str = "all of these hold";
pub(super) const ANY: &str = "at least one of these holds";

/// The sentence, or list of sentences, that says that a condition holds (or, if not `positive`, does not).
pub(super) fn holds(expr: &Value, positive: bool) -> Node {
    Writer { left: DEPTH_MAX }.holds(expr, positive)
}

/// A value that stands in a scope: an entity.
pub(super) fn entity(kind: &str, id: &str) -> String {
    let name = match kind {
        "Person" => "the person",
        "Grant" => "the grant",
        "Run" => "the run",
        "Roster" => "the roster",
        "Line" => "the model line",
        "Lab" => "the lab",
        "Agency" => "the agency",
        "Action" => return action(id),
        other => return format!("the {} {}", quoted(other), quoted(id)),
    };
    format!("{name} {}", quoted(id))
}

fn action(id: &str) -> String {
    match id {
        "Infer" => "a call of any kind".to_owned(),
        "Chat" => "a chat call".to_owned(),
        "Completions" => "a completions call".to_owned(),
        "Embeddings" => "an embeddings call".to_owned(),
        "Responses" => "a call of the responses route".to_owned(),
        "Messages" => "a call of the messages route".to_owned(),
        other => format!("a call of the kind {}", quoted(other)),
    }
}

/// The operator of an expression and what it works on.
pub(crate) fn operator(expr: &Value) -> Option<(&str, &Value)> {
    let map = expr.as_object()?;
    match map.len() {
        1 => map.iter().next().map(|(name, operands)| (name.as_str(), operands)),
        _ => None,
    }
}

/// The entity that an expression is, if it is one written out.
pub(crate) fn literal_entity(expr: &Value) -> Option<(&str, &str)> {
    let ("Value", value) = operator(expr)? else { return None };
    let entity = value.get("__entity")?;
    Some((entity.get("type")?.as_str()?, entity.get("id")?.as_str()?))
}

#[derive(Clone, Copy)]
struct Writer {
    left: usize,
}

impl Writer {
    const fn deeper(self) -> Self {
        Self { left: self.left.saturating_sub(1) }
    }

    fn holds(self, expr: &Value, positive: bool) -> Node {
        let Some((name, operands)) = operator(expr).filter(|_| self.left > 0) else { return as_cedar(expr, positive) };
        let inner = self.deeper();
        let (left, right) = (operands.get("left"), operands.get("right"));
        match (name, left, right) {
            ("&&", Some(_), Some(_)) => inner.list(expr, "&&", positive, if positive { ALL } else { ANY }),
            ("||", Some(_), Some(_)) => inner.list(expr, "||", positive, if positive { ANY } else { ALL }),
            ("!", ..) => match operands.get("arg") {
                Some(arg) => inner.holds(arg, !positive),
                None => as_cedar(expr, positive),
            },
            ("if-then-else", ..) => inner.choice(operands, positive).unwrap_or_else(|| as_cedar(expr, positive)),
            ("==", Some(left), Some(right)) => inner.equal(left, right, positive),
            ("!=", Some(left), Some(right)) => inner.equal(left, right, !positive),
            ("<" | "<=" | ">" | ">=", Some(left), Some(right)) => match Order::parse(name) {
                Some(order) => inner.compared(left, order, right, positive),
                None => as_cedar(expr, positive),
            },
            _ => inner.simple(expr, name, operands, positive).unwrap_or_else(|| as_cedar(expr, positive)),
        }
    }

    fn list(self, expr: &Value, name: &str, positive: bool, intro: &str) -> Node {
        let items = chain(expr, name).into_iter().map(|item| self.holds(item, positive));
        // Brackets round a chain of the same kind say nothing.
        let items = items.flat_map(|item| match item {
            Node::List { intro: same, items } if same == intro => items,
            other @ (Node::Says { .. } | Node::List { .. }) => vec![other],
        });
        Node::List { intro: intro.to_owned(), items: items.collect() }
    }

    fn choice(self, operands: &Value, positive: bool) -> Option<Node> {
        let under = |intro: &str, node| Node::List { intro: intro.to_owned(), items: vec![node] };
        let items = vec![
            under("the condition is that", self.holds(operands.get("if")?, true)),
            under("where it holds,", self.holds(operands.get("then")?, positive)),
            under("where it does not hold,", self.holds(operands.get("else")?, positive)),
        ];
        Some(Node::List { intro: "the following depends on a condition".to_owned(), items })
    }

    fn equal(self, left: &Value, right: &Value, positive: bool) -> Node {
        // `x == true` says no more than `x`.
        for (one, other) in [(left, right), (right, left)] {
            if let Some(("Value", Value::Bool(wanted))) = operator(one) {
                return self.holds(other, positive == *wanted);
            }
        }
        let literal = |side: &Value| matches!(operator(side), Some(("Value", _)));
        let unit = unit(left).or_else(|| unit(right)).unwrap_or(Unit::Plain);
        let (left, right, same) = match (literal(left), literal(right)) {
            (true, false) => (self.phrase(right, unit), self.phrase(left, unit), "is"),
            (false, true) => (self.phrase(left, unit), self.phrase(right, unit), "is"),
            (true, true) | (false, false) => (self.phrase(left, unit), self.phrase(right, unit), "is the same as"),
        };
        says(&[&left, &right], |texts| match (texts, positive) {
            ([left, right], true) => format!("{left} {same} {right}"),
            ([left, right], false) if same == "is" => format!("{left} is not {right}"),
            ([left, right], false) => format!("{left} is not the same as {right}"),
            (_, _) => String::new(),
        })
    }

    fn compared(self, left: &Value, asked: Order, right: &Value, positive: bool) -> Node {
        let unit = unit(left).or_else(|| unit(right)).unwrap_or(Unit::Plain);
        let words = order(if positive { asked } else { asked.opposite() }, unit);
        let (left, right) = (self.phrase(left, unit), self.phrase(right, unit));
        says(&[&left, &right], |texts| texts.join(&format!(" {words} ")))
    }

    /// What is one sentence in any case. `None` if it has no words here.
    fn simple(self, expr: &Value, name: &str, operands: &Value, positive: bool) -> Option<Node> {
        let side = |name: &str| operands.get(name).map(|side| self.phrase(side, unit(side).unwrap_or(Unit::Plain)));
        let pick = |yes: &'static str, no: &'static str| if positive { yes } else { no };
        let joined = |left: &Phrase, words: &str, right: &Phrase| {
            says(&[left, right], |texts| texts.join(&format!(" {words} ")))
        };
        let node = match name {
            "Value" => match (operands.as_bool()?, positive) {
                (true, true) | (false, false) => told("this always holds"),
                (true, false) | (false, true) => told("this never holds"),
            },
            "." => return self.attribute_holds(expr, operands, positive),
            "in" => {
                let right = operands.get("right")?;
                let words = match operator(right) {
                    Some(("Set", _)) => {
                        pick("is, or belongs to, an entry of", "neither is nor belongs to any entry of")
                    }
                    _ => pick("is, or belongs to,", "neither is nor belongs to"),
                };
                joined(&side("left")?, words, &side("right")?)
            }
            "contains" => {
                let (list, entry) = (operands.get("left")?, operands.get("right")?);
                let unit = unit(entry).unwrap_or(Unit::Plain);
                let (list_said, entry) = (self.phrase(list, unit), self.phrase(entry, unit));
                match operator(list) {
                    // A list that is written out reads better behind what is looked for in it.
                    Some(("Set", _)) => joined(&entry, pick("is an entry of", "is no entry of"), &list_said),
                    _ => joined(&list_said, pick("contains", "does not contain"), &entry),
                }
            }
            "containsAll" => joined(
                &side("left")?,
                pick("contains every entry of", "does not contain every entry of"),
                &side("right")?,
            ),
            "containsAny" => {
                joined(&side("left")?, pick("contains at least one entry of", "contains no entry of"), &side("right")?)
            }
            "isEmpty" => {
                says(&[&side("arg")?], |texts| format!("{} {}", texts.concat(), pick("is empty", "is not empty")))
            }
            "like" => {
                let pattern = pattern(operands.get("pattern")?)?;
                let words = pick("reads", "does not read");
                says(&[&side("left")?], |texts| format!("{} {words} {pattern}", texts.concat()))
            }
            "has" => self.has(operands, positive)?,
            "hasTag" => joined(&side("left")?, pick("has a tag named", "has no tag named"), &side("right")?),
            "is" => {
                let kind = quoted(operands.get("entity_type")?.as_str()?);
                let kind_of = pick("is of the kind", "is not of the kind");
                match operands.get("in") {
                    None => says(&[&side("left")?], |texts| format!("{} {kind_of} {kind}", texts.concat())),
                    Some(_) => {
                        let whole = pick("is of the kind", "is not both of the kind");
                        says(&[&side("left")?, &side("in")?], |texts| {
                            texts.join(&format!(" {whole} {kind} and is, or belongs to, "))
                        })
                    }
                }
            }
            "getTag" | "Var" => {
                let said = self.phrase(expr, Unit::Plain);
                says(&[&said], |texts| format!("{} {}", texts.concat(), pick("holds", "does not hold")))
            }
            _ => return None,
        };
        Some(node)
    }

    fn attribute_holds(self, expr: &Value, operands: &Value, positive: bool) -> Option<Node> {
        let of = self.phrase(operands.get("left")?, Unit::Plain);
        let attribute = operands.get("attr")?.as_str()?;
        if let Some(Kind::Thing(owner)) = of.kind
            && let Some(word) = word(owner, attribute)
            && let Says::Flag(yes, no) = word.says
        {
            let sentence = if positive { yes } else { no };
            return Some(says(&[&of], |texts| sentence.replace("{}", &texts.concat())));
        }
        let said = self.phrase(expr, Unit::Plain);
        Some(says(&[&said], |texts| format!("{} {}", texts.concat(), if positive { "holds" } else { "does not hold" })))
    }

    fn has(self, operands: &Value, positive: bool) -> Option<Node> {
        let of = self.phrase(operands.get("left")?, Unit::Plain);
        let path: Vec<&str> = match operands.get("attr")? {
            Value::String(one) => vec![one],
            Value::Array(path) => path.iter().map(Value::as_str).collect::<Option<_>>()?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
        };
        let last = path.into_iter().fold(of.clone(), |of, attribute| member(&of, attribute));
        let words = if positive { "has a value for" } else { "has no value for" };
        Some(says(&[&of, &last], |texts| texts.join(&format!(" {words} "))))
    }

    fn phrase(self, expr: &Value, unit: Unit) -> Phrase {
        let known = match operator(expr) {
            Some((name, operands)) if self.left > 0 => self.deeper().noun(expr, name, operands, unit),
            Some(_) | None => None,
        };
        known.unwrap_or_else(|| Phrase {
            text: format!("the Cedar expression `{}`", cedar_text(expr)),
            kind: None,
            cedar: true,
        })
    }

    fn noun(self, expr: &Value, name: &str, operands: &Value, unit: Unit) -> Option<Phrase> {
        let said = |text: &str, owner| Phrase { text: text.to_owned(), kind: owner, cedar: false };
        let side = |name: &str| operands.get(name).map(|side| self.phrase(side, unit));
        let arithmetic = |words: &str| {
            let (left, right) = (side("left")?, side("right")?);
            let text = format!("({} {words} {})", left.text, right.text);
            Some(Phrase { text, kind: Some(Kind::Number(unit)), cedar: left.cedar || right.cedar })
        };
        match name {
            "Var" => match operands.as_str()? {
                "principal" => Some(said("the person", Some(Kind::Thing(Owner::Person)))),
                "resource" => Some(said("the grant", Some(Kind::Thing(Owner::Grant)))),
                "context" => Some(said("the call", Some(Kind::Thing(Owner::Call)))),
                "action" => Some(said("the kind of call", None)),
                _ => None,
            },
            "Value" => literal(operands, unit),
            "." => Some(member(&self.phrase(operands.get("left")?, Unit::Plain), operands.get("attr")?.as_str()?)),
            "+" => arithmetic("plus"),
            "-" => arithmetic("minus"),
            "*" => arithmetic("times"),
            "neg" => side("arg").map(|arg| Phrase { text: format!("minus {}", arg.text), ..arg }),
            "Set" => {
                let items: Vec<Phrase> = operands.as_array()?.iter().map(|item| self.phrase(item, unit)).collect();
                let texts: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
                let text = if texts.is_empty() {
                    "the empty list".to_owned()
                } else {
                    format!("the list [{}]", texts.join(", "))
                };
                Some(Phrase { text, kind: Some(Kind::List), cedar: items.iter().any(|item| item.cedar) })
            }
            "Record" => {
                let members: &Map<String, Value> = operands.as_object()?;
                let items: Vec<(String, Phrase)> =
                    members.iter().map(|(name, value)| (quoted(name), self.phrase(value, unit))).collect();
                let texts: Vec<String> = items.iter().map(|(name, value)| format!("{name}: {}", value.text)).collect();
                let cedar = items.iter().any(|(_, value)| value.cedar);
                Some(Phrase { text: format!("the record {{{}}}", texts.join(", ")), kind: None, cedar })
            }
            "if-then-else" => {
                let (condition, cedar) = inline(&self.holds(operands.get("if")?, true));
                let (then, otherwise) = (side("then")?, side("else")?);
                Some(Phrase {
                    text: format!("(if {condition}: {}; otherwise: {})", then.text, otherwise.text),
                    kind: then.kind,
                    cedar: cedar || then.cedar || otherwise.cedar,
                })
            }
            "getTag" => {
                let (of, tag) = (side("left")?, side("right")?);
                let text = format!("the tag {} of {}", tag.text, of.text);
                Some(Phrase { text, kind: None, cedar: of.cedar || tag.cedar })
            }
            "!" | "&&" | "||" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "contains" | "containsAll"
            | "containsAny" | "isEmpty" | "like" | "has" | "hasTag" | "is" => {
                let (text, cedar) = inline(&self.holds(expr, true));
                Some(Phrase { text: format!("whether ({text})"), kind: Some(Kind::Flag), cedar })
            }
            _ => None,
        }
    }
}

/// A member or an attribute of what was named.
fn member(of: &Phrase, attribute: &str) -> Phrase {
    let row = match of.kind {
        Some(Kind::Thing(owner)) => word(owner, attribute),
        Some(Kind::Text | Kind::List | Kind::Number(_) | Kind::Flag) | None => None,
    };
    match row {
        Some(row) => {
            let text = match row.says {
                Says::Noun(noun) => noun.replace("{}", &of.text),
                Says::Flag(yes, _) => format!("whether {}", yes.replace("{}", &of.text)),
            };
            Phrase { text, kind: Some(row.kind), cedar: of.cedar }
        }
        None => {
            Phrase { text: format!("the value `{}` of {}", quoted(attribute), of.text), kind: None, cedar: of.cedar }
        }
    }
}

fn literal(value: &Value, unit: Unit) -> Option<Phrase> {
    let said = |text, kind| Some(Phrase { text, kind, cedar: false });
    match value {
        Value::Bool(flag) => said(if *flag { "true" } else { "false" }.to_owned(), Some(Kind::Flag)),
        Value::Number(long) => said(number(long.as_i64()?, unit), Some(Kind::Number(unit))),
        Value::String(text) => said(quoted(text), Some(Kind::Text)),
        Value::Object(map) if map.len() == 1 => {
            let entity_of = map.get("__entity")?;
            let (kind, id) = (entity_of.get("type")?.as_str()?, entity_of.get("id")?.as_str()?);
            said(entity(kind, id), Owner::parse(kind).map(Kind::Thing))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What a number in an expression counts, if anything says so.
pub(crate) fn unit(expr: &Value) -> Option<Unit> {
    fn within(expr: &Value, left: usize) -> Option<Kind> {
        let (name, operands) = operator(expr).filter(|_| left > 0)?;
        let side = |name: &str| operands.get(name).and_then(|side| within(side, left.saturating_sub(1)));
        let counted =
            |kind: Option<Kind>| kind.filter(|kind| matches!(kind, Kind::Number(unit) if *unit != Unit::Plain));
        match name {
            "Var" => match operands.as_str()? {
                "principal" => Some(Kind::Thing(Owner::Person)),
                "resource" => Some(Kind::Thing(Owner::Grant)),
                "context" => Some(Kind::Thing(Owner::Call)),
                _ => None,
            },
            "Value" => literal_entity(expr).and_then(|(kind, _)| Owner::parse(kind)).map(Kind::Thing),
            "." => match side("left")? {
                Kind::Thing(owner) => word(owner, operands.get("attr")?.as_str()?).map(|word| word.kind),
                Kind::Text | Kind::List | Kind::Number(_) | Kind::Flag => None,
            },
            "+" | "-" | "*" => counted(side("left")).or_else(|| counted(side("right"))),
            "neg" => side("arg"),
            "if-then-else" => counted(side("then")).or_else(|| counted(side("else"))),
            "Set" => operands.as_array()?.iter().find_map(|item| counted(within(item, left.saturating_sub(1)))),
            _ => None,
        }
    }
    match within(expr, DEPTH_MAX)? {
        Kind::Number(unit) => Some(unit),
        Kind::Thing(_) | Kind::Text | Kind::List | Kind::Flag => None,
    }
}

/// The members of a chain of one operator, in order.
fn chain<'a>(expr: &'a Value, name: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    let mut left = vec![expr];
    while let Some(next) = left.pop() {
        match operator(next) {
            Some((operator, operands)) if operator == name => {
                left.extend(operands.get("right"));
                left.extend(operands.get("left"));
            }
            Some(_) | None => found.push(next),
        }
    }
    found
}

/// A pattern, piece by piece.
fn pattern(elements: &Value) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut literal = String::new();
    let close = |literal: &mut String, parts: &mut Vec<String>| {
        if !literal.is_empty() {
            parts.push(quoted(&std::mem::take(literal)));
        }
    };
    for element in elements.as_array()? {
        match element {
            Value::String(wildcard) if wildcard == "Wildcard" => {
                close(&mut literal, &mut parts);
                parts.push("any text".to_owned());
            }
            Value::Object(piece) => literal.push_str(piece.get("Literal")?.as_str()?),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
        }
    }
    close(&mut literal, &mut parts);
    Some(if parts.is_empty() { "nothing".to_owned() } else { parts.join(", then ") })
}

/// A condition on one line, and whether any of it is Cedar.
fn inline(node: &Node) -> (String, bool) {
    match node {
        Node::Says { text, cedar } => (text.clone(), *cedar),
        Node::List { intro, items } => {
            let items: Vec<(String, bool)> = items.iter().map(inline).collect();
            let texts: Vec<&str> = items.iter().map(|(text, _)| text.as_str()).collect();
            (format!("{intro} [{}]", texts.join("; ")), items.iter().any(|(_, cedar)| *cedar))
        }
    }
}

fn told(text: &str) -> Node {
    Node::Says { text: text.to_owned(), cedar: false }
}

fn says(of: &[&Phrase], sentence: impl FnOnce(&[&str]) -> String) -> Node {
    let texts: Vec<&str> = of.iter().map(|phrase| phrase.text.as_str()).collect();
    Node::Says { text: sentence(&texts), cedar: of.iter().any(|phrase| phrase.cedar) }
}

fn as_cedar(expr: &Value, positive: bool) -> Node {
    let holds = if positive { "holds" } else { "does not hold" };
    Node::Says { text: format!("the Cedar expression `{}` {holds}", cedar_text(expr)), cedar: true }
}
