//! What a rule that is valid may still get wrong: numbers that the facts never take, and conditions that fail on some calls.
//!
//! **Invariant:** a rule in which nothing is found here answers every call whose facts this program can make; no sum of it leaves
//! what a number can hold, and it asks for no entity that may be missing.

use serde_json::Value;

use super::english::{
    expr::{literal_entity, operator, unit},
    words::Unit,
};
use crate::facts::TOKENS_STEP;

/// First minute of the year 2200: who writes a larger one means seconds or milliseconds.
const MINUTE_MAX: i64 = 120_968_640;
/// Last minute that facts can hold, of the year 9999 and some more.
const MINUTE_EVER: i128 = 5_000_000_000;

/// What is wrong with a rule, given as the engine's JSON; `known` says whether the grant has an entity of this kind and name.
pub(super) fn problems(rule: &Value, known: &dyn Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let conditions = rule.get("conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut left: Vec<&Value> = conditions.iter().filter_map(|condition| condition.get("body")).collect();
    while let Some(value) = left.pop() {
        if let Some((name, operands)) = operator(value) {
            look(value, name, operands, known, &mut found);
        }
        match value {
            Value::Array(list) => left.extend(list),
            Value::Object(members) => left.extend(members.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    found.sort();
    found.dedup();
    found
}

fn look(value: &Value, name: &str, operands: &Value, known: &dyn Fn(&str, &str) -> bool, found: &mut Vec<String>) {
    match name {
        "==" | "!=" | "<" | "<=" | ">" | ">=" | "contains" | "containsAll" | "containsAny" => {
            let mut atoms = Atoms::default();
            for side in ["left", "right"] {
                operands.get(side).into_iter().for_each(|side| atoms.gather(side));
            }
            atoms.judge(found);
        }
        "+" | "-" | "*" | "neg" => {
            let fits = |(low, high): (i128, i128)| low >= i128::from(i64::MIN) && high <= i128::from(i64::MAX);
            let inner = ["left", "right", "arg"].into_iter().filter_map(|side| operands.get(side));
            if !fits(range(value)) && inner.map(range).all(fits) {
                found.push(
                    "a sum or product can leave the range of numbers on some calls, which would be refused without \
                     naming this rule; compare without reckoning"
                        .to_owned(),
                );
            }
        }
        "." => {
            let entity = operands.get("left").and_then(literal_entity);
            if let Some((kind, id)) = entity.filter(|(kind, id)| !known(kind, id)) {
                found.push(format!(
                    "`{kind}::\"{id}\"` is not in the terms, so that every call would be refused without naming this rule; \
                     give the terms that have it"
                ));
            }
        }
        _ => {}
    }
}

/// The numbers of a comparison, and what they count.
#[derive(Default)]
struct Atoms {
    units: Vec<Unit>,
    numbers: Vec<i64>,
    product: bool,
}

impl Atoms {
    fn gather(&mut self, expr: &Value) {
        let Some((name, operands)) = operator(expr) else { return };
        let sides: &[&str] = match name {
            "Value" => return self.numbers.extend(operands.as_i64()),
            "." => return self.units.extend(unit(expr)),
            "Set" => return operands.as_array().into_iter().flatten().for_each(|item| self.gather(item)),
            "*" => {
                self.product = true;
                &["left", "right"]
            }
            "+" | "-" => &["left", "right"],
            "neg" => &["arg"],
            "if-then-else" => &["then", "else"],
            // Conditions inside have comparisons of their own.
            _ => return,
        };
        sides.iter().filter_map(|side| operands.get(side)).for_each(|side| self.gather(side));
    }

    fn judge(&self, found: &mut Vec<String>) {
        let step = i64::try_from(TOKENS_STEP).unwrap_or(i64::MAX);
        for unit in &self.units {
            for number in &self.numbers {
                let wrong = match unit {
                    Unit::Tokens if number.rem_euclid(step) != 0 => {
                        let below = number.div_euclid(step).saturating_mul(step);
                        Some(format!(
                            "tokens are compared with {number}, but rules see them rounded up to a multiple of {step}: write \
                             {below} or {}",
                            below.saturating_add(step)
                        ))
                    }
                    Unit::Minute if !(-MINUTE_MAX..=MINUTE_MAX).contains(number) => Some(format!(
                        "a time is compared with {number}, but times are whole minutes since 1970: write minutes, not seconds \
                         or milliseconds"
                    )),
                    Unit::MinuteOfDay if !(0..=1_440).contains(number) => {
                        Some(format!("a time of day is compared with {number}, but it is a minute from 0 to 1440"))
                    }
                    Unit::Weekday if !(0..=6).contains(number) => Some(format!(
                        "a weekday is compared with {number}, but 0 is Monday and 6 is Sunday; every other number is no day"
                    )),
                    Unit::Plain
                    | Unit::Tokens
                    | Unit::Minute
                    | Unit::MinuteOfDay
                    | Unit::Weekday
                    | Unit::Level
                    | Unit::Verdict => None,
                };
                found.extend(wrong);
            }
            if self.product && *unit == Unit::Tokens {
                found.push(format!(
                    "tokens are multiplied before they are compared, which undoes their rounding to {step}; compare them as \
                     they are"
                ));
            }
        }
    }
}

/// What a number can be.
fn range(expr: &Value) -> (i128, i128) {
    let whole = (i128::from(i64::MIN), i128::from(i64::MAX));
    let Some((name, operands)) = operator(expr) else { return whole };
    let side = |name: &str| operands.get(name).map_or(whole, range);
    let span = |values: [i128; 4]| {
        let low = values.into_iter().min().unwrap_or(whole.0);
        let high = values.into_iter().max().unwrap_or(whole.1);
        (low.clamp(i128::MIN / 4, i128::MAX / 4), high.clamp(i128::MIN / 4, i128::MAX / 4))
    };
    match name {
        "Value" => operands.as_i64().map_or(whole, |number| (i128::from(number), i128::from(number))),
        "." => match unit(expr) {
            Some(Unit::Tokens) => (0, whole.1),
            Some(Unit::Minute) => (0, MINUTE_EVER),
            Some(Unit::MinuteOfDay) => (0, 1_439),
            Some(Unit::Weekday) => (0, 6),
            Some(Unit::Plain | Unit::Level | Unit::Verdict) => (0, i128::from(u32::MAX)),
            None => whole,
        },
        "+" | "-" | "*" => {
            let ((a, b), (c, d)) = (side("left"), side("right"));
            match name {
                "+" => span([a.saturating_add(c), b.saturating_add(d), a.saturating_add(c), b.saturating_add(d)]),
                "-" => span([a.saturating_sub(d), b.saturating_sub(c), a.saturating_sub(d), b.saturating_sub(c)]),
                _ => span([a.saturating_mul(c), a.saturating_mul(d), b.saturating_mul(c), b.saturating_mul(d)]),
            }
        }
        "neg" => {
            let (low, high) = side("arg");
            (high.saturating_neg(), low.saturating_neg())
        }
        "if-then-else" => {
            let ((a, b), (c, d)) = (side("then"), side("else"));
            span([a, b, c, d])
        }
        _ => whole,
    }
}
