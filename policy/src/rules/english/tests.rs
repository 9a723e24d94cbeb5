#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests stop at the first surprise")]
use std::collections::BTreeSet;

use cedar_policy::SchemaFragment;
use expect_test::{Expect, expect, expect_file};
use proptest::prelude::*;

use super::{
    expr::operator,
    words::{Kind, Owner, Says, WORDS, word},
    *,
};
use crate::rules::{SCHEMA, engine::Rules, fixture};

fn forbid(condition: &str) -> Rule {
    added(&format!(r#"@id("x") forbid (principal, action, resource) when {{ {condition} }};"#)).unwrap().remove(0)
}

fn check(condition: &str, expected: &Expect) {
    expected.assert_eq(&forbid(condition).text());
}

fn scoped(scope: &str, expected: &Expect) {
    let rule = added(&format!(r#"@id("x") forbid ({scope});"#)).unwrap().remove(0);
    expected.assert_eq(&rule.text());
}

#[test]
fn the_baseline_reads_as_it_reads() {
    let mut text = String::new();
    for rule in baseline().unwrap() {
        assert!(!rule.has_cedar(), "{}", rule.id);
        text.push_str(&format!("{} ({})\n{}\n", rule.id, rule.comment.as_deref().unwrap(), rule.text()));
    }
    expect_file!["../baseline.txt"].assert_eq(&text);
}

#[test]
fn every_attribute_of_the_schema_has_words_of_its_kind() {
    let (fragment, _) = SchemaFragment::from_cedarschema_str(SCHEMA).unwrap();
    let schema = fragment.to_json_value().unwrap();
    let mut owned = BTreeSet::new();
    let mut members = |owner: &str, record: &serde_json::Value| {
        let Some(attributes) = record["attributes"].as_object() else { return };
        for (attribute, kind) in attributes {
            let of = Owner::parse(owner).unwrap_or_else(|| panic!("`{owner}` has no words"));
            let row = word(of, attribute).unwrap_or_else(|| panic!("`{owner}.{attribute}` has no words"));
            let name = match kind["type"].as_str().unwrap() {
                "EntityOrCommon" => kind["name"].as_str().unwrap(),
                other => other,
            };
            let same = match row.kind {
                Kind::Flag => name == "Bool" || name == "Boolean",
                Kind::Number(_) => name == "Long",
                Kind::Text => name == "String",
                Kind::List => name == "Set",
                Kind::Thing(owner) => Owner::parse(name) == Some(owner),
            };
            assert!(same, "`{owner}.{attribute}` is a {name}");
            assert_eq!(matches!(row.says, Says::Flag(..)), row.kind == Kind::Flag);
            owned.insert((owner.to_owned(), attribute.clone()));
        }
    };
    for (name, kind) in schema[""]["commonTypes"].as_object().unwrap() {
        members(name, kind);
    }
    for (name, kind) in schema[""]["entityTypes"].as_object().unwrap() {
        members(name, &kind["shape"]);
    }
    assert_eq!(owned.len(), WORDS.len(), "words for what is not in the schema");
    let nouns: BTreeSet<&str> = WORDS
        .iter()
        .flat_map(|word| match word.says {
            Says::Noun(noun) => vec![noun],
            Says::Flag(yes, no) => vec![yes, no],
        })
        .collect();
    for noun in nouns {
        assert_eq!(noun.matches("{}").count(), 1, "{noun}");
    }
}

#[test]
fn scopes_say_whose_calls_they_are_about() {
    scoped(
        "principal, action, resource",
        &expect![[r#"
        Refuse every call.
    "#]],
    );
    scoped(
        r#"principal, action == Action::"Chat", resource"#,
        &expect![[r#"
        Refuse every chat call.
    "#]],
    );
    scoped(
        r#"principal, action in [Action::"Chat", Action::"Responses", Action::"Messages"], resource"#,
        &expect![[r#"
        Refuse every chat call and every call of the responses route and every call of the messages route.
    "#]],
    );
    scoped(
        r#"principal == Person::"p-1", action, resource is Grant"#,
        &expect![[r#"
        Refuse every call by the person "p-1".
    "#]],
    );
    scoped(
        r#"principal is Person in Agency::"a", action in Action::"Infer", resource in Lab::"l""#,
        &expect![[r#"
        Refuse every call by whoever is, or belongs to, the agency "a" under a grant that is, or belongs to, the lab "l".
    "#]],
    );
    // Nothing is known of other kinds, so that their text stands for itself.
    scoped(
        r#"principal is Robot, action == Action::"Infer", resource"#,
        &expect![[r#"
        Refuse every call of the kind that `action` in the Cedar text names by whom `principal` in the Cedar text names.
    "#]],
    );
    let rule =
        added(r#"@id("x") forbid (principal is Robot, action, resource) when { context.seed };"#).unwrap().remove(0);
    assert!(rule.has_cedar());
}

#[test]
fn operators_have_words() {
    check(
        "context.tokensAsked + 256 > 1024 - 512",
        &expect![[r#"
        Refuse every call when (the most tokens that the call can cost (rounded up to a multiple of 256) plus 256 tokens) is more than (1024 tokens minus 512 tokens).
    "#]],
    );
    check(
        "context.minute >= 29919600 || context.minuteOfDay < 480 || context.weekday > 4",
        &expect![[r#"
        Refuse every call when at least one of these holds:
            (a) the time of the call is not before 2026-11-20 12:00 UTC (minute 29919600);
            (b) the time of day (UTC) of the call is before 08:00 (minute 480 of the day);
            (c) the weekday (UTC) of the call is, counted from Monday, after Friday.
    "#]],
    );
    check(
        "context.n * 2 == -(3) && context.n != 4",
        &expect![[r#"
        Refuse every call when all of these hold:
            (a) (the number of answers that the call asks for times 2) is the same as minus 3;
            (b) the number of answers that the call asks for is not 4.
    "#]],
    );
    check(
        r#"principal.employer like "Acme*\*" && !(context.network like "hq")"#,
        &expect![[r#"
        Refuse every call when all of these hold:
            (a) the employer of the person reads "Acme", then any text, then "*";
            (b) the network that the call comes from does not read "hq".
    "#]],
    );
    check(
        r#"["a", "b"].contains(context.purpose) && !context.tools.contains("function")"#,
        &expect![[r#"
        Refuse every call when all of these hold:
            (a) the purpose of the call is an entry of the list ["a", "b"];
            (b) the list of tool kinds that the call asks for does not contain "function".
    "#]],
    );
    check(
        "principal in resource.roster && !(context.run in resource)",
        &expect![[r#"
        Refuse every call when all of these hold:
            (a) the person is, or belongs to, the roster that the grant names;
            (b) the run of the call neither is nor belongs to the grant.
    "#]],
    );
    check(
        r#"principal in [Agency::"a", Agency::"b"] || context.run == Run::"run-1""#,
        &expect![[r#"
        Refuse every call when at least one of these holds:
            (a) the person is, or belongs to, an entry of the list [the agency "a", the agency "b"];
            (b) the run of the call is the run "run-1".
    "#]],
    );
    check(
        "context.tools.isEmpty() || !context.scanHits.containsAny(resource.tools)",
        &expect![[r#"
        Refuse every call when at least one of these holds:
            (a) the list of tool kinds that the call asks for is empty;
            (b) the list of detectors that hit in the call contains no entry of the list of tool kinds that the grant lends.
    "#]],
    );
    check(
        "context.stream == true && context.seed == false && context.prefill == resource.prefill",
        &expect![[r#"
        Refuse every call when all of these hold:
            (a) the call asks for a streamed answer;
            (b) the call gives no seed;
            (c) whether the call asks for prefill is the same as whether the grant lends prefill.
    "#]],
    );
    check(
        "if context.stream then context.n > 1 else (context.seed && context.prefill)",
        &expect![[r#"
        Refuse every call when the following depends on a condition:
            (a) the condition is that the call asks for a streamed answer;
            (b) where it holds, the number of answers that the call asks for is more than 1;
            (c) where it does not hold, all of these hold:
                (i) the call gives a seed;
                (ii) the call asks for prefill.
    "#]],
    );
    check(
        "(if context.stream then 1 else 2) < context.n",
        &expect![[r#"
        Refuse every call when (if the call asks for a streamed answer: 1; otherwise: 2) is less than the number of answers that the call asks for.
    "#]],
    );
    check(
        "context has run && context.run has purpose && context has mark.relTo",
        &expect![[r#"
        Refuse every call when all of these hold:
            (a) the call has a value for the run of the call;
            (b) the run of the call has a value for the signed purpose of the run of the call;
            (c) the call has a value for the REL TO list of the marking of the call.
    "#]],
    );
    check(
        "principal is Person && principal is Person in Agency::\"a\"",
        &expect![[r#"
        Refuse every call when all of these hold:
            (a) the person is of the kind "Person";
            (b) the person is of the kind "Person" and is, or belongs to, the agency "a".
    "#]],
    );
    check(
        "{a: 1, b: context.n} == {a: 1, b: 2}",
        &expect![[r#"
        Refuse every call when the record {"a": 1, "b": the number of answers that the call asks for} is the same as the record {"a": 1, "b": 2}.
    "#]],
    );
    check(
        "principal.hasTag(\"x\") && principal.getTag(\"x\") == \"y\"",
        &expect![[r#"
        Refuse every call when all of these hold:
            (a) the person has a tag named "x";
            (b) the tag "x" of the person is "y".
    "#]],
    );
    check(
        "!(context.stream && (context.seed || !context.prefill))",
        &expect![[r#"
        Refuse every call when at least one of these holds:
            (a) the call does not ask for a streamed answer;
            (b) all of these hold:
                (i) the call gives no seed;
                (ii) the call asks for prefill.
    "#]],
    );
    check(
        "true && !false",
        &expect![[r#"
        Refuse every call when all of these hold:
            (a) this always holds;
            (b) this always holds.
    "#]],
    );
    check(
        "context.nothing == 3",
        &expect![[r#"
        Refuse every call when the value `"nothing"` of the call is 3.
    "#]],
    );
}

#[test]
fn what_has_no_words_is_shown_as_cedar_and_marked() {
    let rule = forbid(r#"ip("10.0.0.1").isLoopback() && context.stream"#);
    assert!(rule.has_cedar());
    expect![[r#"
        Refuse every call when all of these hold:
            (a) the Cedar expression `ip("10.0.0.1").isLoopback()` holds;
            (b) the call asks for a streamed answer.
    "#]]
    .assert_eq(&rule.text());
    assert!(forbid(r#"datetime("2026-01-01") < datetime("2027-01-01")"#).has_cedar());
}

#[test]
fn many_conditions_are_one_list() {
    let text = r#"@id("x") forbid (principal, action, resource)
        when { context.stream } unless { context.seed || context.prefill } when { context.n > 1 };"#;
    expect![[r#"
        Refuse every call when all of these hold:
            (a) the call asks for a streamed answer;
            (b) all of these hold:
                (i) the call gives no seed;
                (ii) the call does not ask for prefill;
            (c) the number of answers that the call asks for is more than 1.
    "#]]
    .assert_eq(&added(text).unwrap()[0].text());
}

#[test]
fn a_text_cannot_pass_for_english() {
    let rule = forbid(r#"context.purpose == "x\"; this never holds\u{202e}\n(b) and so on""#);
    expect![[r#"
        Refuse every call when the purpose of the call is "x\"; this never holds[U+202E][U+000A](b) and so on".
    "#]]
    .assert_eq(&rule.text());
    assert_eq!(rule.text().lines().count(), 1);
    let written = forbid("context.purpose == \"\u{202e}evil\"");
    assert!(!written.cedar.contains('\u{202e}') && written.cedar.contains("[U+202E]"));
}

#[test]
fn labels_count_as_lawyers_do() {
    let labels = |depth: usize| [0, 1, 3, 25, 26, 27].map(|place| numbered(depth, place)).join(" ");
    expect!["(a) (b) (d) (z) (aa) (bb)"].assert_eq(&labels(0));
    expect!["(i) (ii) (iv) (xxvi) (xxvii) (xxviii)"].assert_eq(&labels(1));
    expect!["(1) (2) (4) (26) (27) (28)"].assert_eq(&labels(2));
    expect!["(A) (B) (D) (Z) (AA) (BB)"].assert_eq(&labels(3));
}

/// Every attribute that an expression mentions, with whose it is, as far as its path says.
fn mentioned(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    if let Some((".", operands)) = operator(value) {
        found.insert(operands["attr"].as_str().unwrap().to_owned());
    }
    match value {
        serde_json::Value::Array(list) => list.iter().for_each(|inner| mentioned(inner, found)),
        serde_json::Value::Object(members) => members.values().for_each(|inner| mentioned(inner, found)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// Whether a text holds the words of an attribute of this name, or the name itself.
fn says_attribute(text: &str, attribute: &str) -> bool {
    let parts = |sentence: &str| sentence.split("{}").all(|part| text.contains(part));
    text.contains(&format!("`\"{attribute}\"`"))
        || text.contains(attribute)
        || WORDS.iter().filter(|word| word.attribute == attribute).any(|word| match word.says {
            Says::Noun(noun) => parts(noun),
            Says::Flag(yes, no) => parts(yes) || parts(no),
        })
}

/// A condition that the schema knows, of any shape.
fn condition() -> impl Strategy<Value = String> {
    let flag = prop::sample::select(vec![
        "context.stream",
        "context.seed",
        "resource.chat",
        "principal.usOnly",
        "context.mark.noforn",
        "context.run.anyNetwork",
    ])
    .prop_map(str::to_owned);
    let number = prop::sample::select(vec!["context.n", "context.images", "resource.logprobs", "principal.clearance"]);
    let order = prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]);
    let compared = (number, order, 0..9_i64).prop_map(|(number, order, with)| format!("{number} {order} {with}"));
    let list = prop::sample::select(vec!["context.tools", "resource.tools", "principal.readIns", "context.mark.relTo"]);
    let listed = (list.clone(), list, prop::sample::select(vec!["containsAll", "containsAny", "contains"])).prop_map(
        |(left, right, operator)| match operator {
            "contains" => format!("{left}.contains(context.network)"),
            operator => format!("{left}.{operator}({right})"),
        },
    );
    let leaf = prop_oneof![flag, compared, listed];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(if {a} then {b} else {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_attribute_that_a_rule_mentions_is_in_its_english(body in condition(), unless in any::<bool>()) {
        let clause = if unless { "unless" } else { "when" };
        let text = format!("@id(\"x\") forbid (principal, action, resource) {clause} {{ {body} }};");
        // Some are deeper than rules may be.
        if let Ok(rules) = added(&text) {
            let english = rules[0].text();
            prop_assert!(!rules[0].has_cedar(), "{}", english);
            let mut found = BTreeSet::new();
            mentioned(&read(&text, ADDED_PREFIX).unwrap()[0].to_json().unwrap(), &mut found);
            for attribute in found {
                prop_assert!(says_attribute(&english, &attribute), "{}: {}", attribute, english);
            }
        }
    }

    #[test]
    fn english_agrees_with_the_engine_on_flags(stream in any::<bool>(), seed in any::<bool>(), negated in any::<bool>()) {
        let body = if negated { "!(context.stream && !context.seed)" } else { "context.stream && !context.seed" };
        let text = format!("@id(\"x\") forbid (principal, action, resource) when {{ {body} }};");
        let english = added(&text).unwrap()[0].text();
        let mut facts = fixture::facts();
        (facts.stream, facts.seed) = (stream, seed);
        let refused = Rules::new(&fixture::added(&text)).unwrap().ask(&facts).reasons.contains(&"lab/x".to_owned());
        let (streams, gives) = (english.contains("call asks for a streamed"), english.contains("call gives a seed"));
        let parts = [streams == stream, gives == seed];
        let said = if english.contains(ALL) { parts.iter().all(|part| *part) } else { parts.iter().any(|part| *part) };
        prop_assert_eq!(said, refused, "{}", english);
    }
}
