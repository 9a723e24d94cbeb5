#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]
use std::sync::LazyLock;

use anteroom_proto::rpc::Marking;
use expect_test::{Expect, expect};

use super::*;
use crate::rules::EXPRESSION_DEPTH_MAX;
use crate::rules::fixture::{added, facts, terms};

fn answer(terms: &Terms, facts: &Facts) -> String {
    shown(&Rules::new(terms).unwrap(), facts)
}

fn shown(rules: &Rules, facts: &Facts) -> String {
    let answer = rules.ask(facts);
    format!("{}: {}", if answer.allow { "allow" } else { "deny" }, answer.reasons.join(" "))
}

fn refused(terms: &Terms) -> RulesError {
    Rules::new(terms).unwrap_err()
}

fn check(change: impl FnOnce(&mut Facts), expected: &Expect) {
    let mut facts = facts();
    change(&mut facts);
    static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::new(&terms(|_| {})).unwrap());
    expected.assert_eq(&shown(&RULES, &facts));
}

fn marking(level: u32, caveats: &[&str], rel_to: &[&str]) -> Option<Marking> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Some(Marking { level, caveats: texts(caveats), rel_to: texts(rel_to) })
}

#[test]
fn reasons_name_the_rules_that_decided() {
    check(|_| {}, &expect!["allow: grant"]);
    check(|f| f.route = "completions".into(), &expect!["deny: completions"]);
    check(|f| f.route = "embeddings".into(), &expect!["deny: embeddings"]);
    check(|f| f.route = "responses".into(), &expect!["deny: responses"]);
    check(|f| f.route = "messages".into(), &expect!["deny: messages"]);
    check(|f| f.stream = true, &expect!["allow: grant"]);
    check(|f| f.tools = vec!["function".into()], &expect!["allow: grant"]);
    check(|f| f.tools = vec!["function".into(), "web_search".into()], &expect!["deny: tools"]);
    check(|f| f.images = 2, &expect!["deny: images"]);
    check(|f| f.logprobs = 3, &expect!["allow: grant"]);
    check(|f| f.logprobs = 4, &expect!["deny: logprobs"]);
    check(|f| f.logit_bias = true, &expect!["deny: logit-bias"]);
    check(|f| (f.logit_bias, f.logprobs) = (true, 1), &expect!["deny: extraction logit-bias"]);
    check(|f| f.n = 2, &expect!["allow: grant"]);
    check(|f| f.n = 3, &expect!["deny: n"]);
    check(|f| f.n = 0, &expect!["deny: n"]);
    check(|f| f.seed = true, &expect!["deny: seed"]);
    check(|f| f.prefill = true, &expect!["deny: prefill"]);
    check(|f| f.reasoning = true, &expect!["deny: reasoning"]);
    check(|f| f.response_format = "json_object".into(), &expect!["deny: response-format"]);
    check(|f| f.named_fields = vec!["top_k".into()], &expect!["allow: grant"]);
    check(|f| f.named_fields = vec!["min_p".into(), "top_k".into()], &expect!["deny: named-fields"]);
    check(|f| f.scan_verdict = 1, &expect!["allow: grant"]);
    check(|f| f.scan_verdict = 2, &expect!["deny: scan"]);
    check(|f| f.scan_verdict = 3, &expect!["deny: scan"]);
    check(|f| f.model = "m2".into(), &expect!["deny: model"]);
    check(|f| f.variant = "helpful-only".into(), &expect!["deny: model"]);
    check(|f| f.network = "unknown".into(), &expect!["deny: network"]);
    check(|f| f.minute = 2_000, &expect!["deny: engaged trained"]);
    check(|f| f.trained_until_minute = 1_000, &expect!["deny: trained"]);
    check(|f| (f.stream, f.seed, f.n) = (true, true, 9), &expect!["deny: n seed"]);
}

#[test]
fn a_purpose_is_the_runs_own_to_the_byte() {
    for purpose in ["evaluate ", "еvaluate", "probe", ""] {
        check(|f| f.purpose = purpose.into(), &expect!["deny: nothing_allows"]);
    }
    check(|f| (f.run, f.purpose, f.network) = ("run-2".into(), "probe".into(), "any".into()), &expect!["allow: grant"]);
}

#[test]
fn markings_hold_by_level_caveat_citizenship_and_list() {
    check(|f| f.marking = marking(2, &[], &[]), &expect!["deny: ceiling no-read-up no-write-down"]);
    check(|f| f.marking = marking(u32::MAX, &[], &[]), &expect!["deny: ceiling no-read-up no-write-down"]);
    check(|f| f.clearance = 0, &expect!["deny: no-read-up"]);
    check(|f| f.read_ins = vec![], &expect!["deny: no-read-up"]);
    check(|f| f.marking = marking(1, &["PROPIN", "NOFORN"], &[]), &expect!["deny: no-write-down"]);
    check(|f| f.marking = marking(1, &["ORCON"], &[]), &expect!["deny: no-read-up no-write-down"]);
    check(|f| f.marking = marking(1, &["PROPIN"], &["USA"]), &expect!["allow: grant"]);
    check(|f| f.marking = marking(1, &["PROPIN"], &["GBR"]), &expect!["deny: rel-to"]);
    check(|f| f.marking = marking(1, &["PROPIN"], &[crate::facts::NOBODY]), &expect!["deny: rel-to"]);
}

#[test]
fn noforn_asks_for_a_citizenship_and_for_no_read_in() {
    for caveat in ["NOFORN", "noforn"] {
        let terms = terms(|json| json["marking"]["caveats"] = vec![caveat].into());
        let mut facts = facts();
        facts.read_ins = vec![];
        facts.marking = marking(1, &[caveat], &[]);
        expect!["allow: grant"].assert_eq(&answer(&terms, &facts));
        for dual_or_unstated in ["no", "unknown", "", "YES"] {
            facts.us_only = dual_or_unstated.into();
            expect!["deny: noforn"].assert_eq(&answer(&terms, &facts));
        }
    }
}

#[test]
fn a_rel_to_list_needs_a_person_whom_it_covers() {
    let terms = terms(|json| json["marking"]["rel_to"] = vec!["GBR", "USA"].into());
    let mut facts = facts();
    facts.marking = marking(1, &["PROPIN"], &["GBR", "USA"]);
    expect!["allow: grant"].assert_eq(&answer(&terms, &facts));
    facts.rel_to_ok = vec![];
    expect!["deny: rel-to"].assert_eq(&answer(&terms, &facts));
}

// Trap 1: Cedar skips a forbidding rule that errs.
#[test]
fn a_rule_that_errs_refuses() {
    let terms = added(
        r#"@id("huge") forbid (principal, action, resource) when { context.tokensAsked + 9223372036854775807 > 100 };"#,
    );
    expect!["deny: engine_error"].assert_eq(&answer(&terms, &facts()));
    let mut free = facts();
    free.tokens_asked = 0;
    expect!["deny: lab/huge"].assert_eq(&answer(&terms, &free));
}

#[test]
fn what_does_not_fit_the_schema_refuses() {
    check(|f| f.tokens_asked = u64::MAX, &expect!["deny: engine_error"]);
    check(|f| f.marking = None, &expect!["deny: engine_error"]);
    check(|f| f.route = "Chat".into(), &expect!["deny: engine_error"]);
}

// Trap 2: entities without the schema lose the groups of actions, and a rule over `Infer` never fires.
#[test]
fn a_rule_over_the_group_of_actions_fires() {
    let terms = added(r#"@id("none") forbid (principal, action in Action::"Infer", resource);"#);
    expect!["deny: lab/none"].assert_eq(&answer(&terms, &facts()));
}

// Trap 3: `has` on an entity that is missing is false, which disarms a rule.
#[test]
fn a_missing_run_refuses() {
    check(|f| f.run = "run-3".into(), &expect!["deny: engine_error"]);
    check(|f| f.run = String::new(), &expect!["deny: engine_error"]);
}

#[test]
fn every_attribute_is_mandatory() {
    let optional = SCHEMA.lines().map(|line| line.split("//").next().unwrap()).any(|line| line.contains("?:"));
    assert!(!optional);
}

#[test]
fn every_baseline_rule_but_one_only_forbids_and_says_unless() {
    for policy in read(BASELINE, "").unwrap() {
        let text = policy.to_string();
        assert_eq!(policy.effect() == Effect::Permit, policy.id().to_string() == ALLOWING_RULE, "{text}");
        assert!(policy.effect() == Effect::Permit || !text.contains("when {"), "{text}");
    }
}

#[test]
fn a_second_rule_that_allows_refuses_the_load() {
    let blanket = r#"@id("all") permit (principal, action, resource);"#;
    assert_eq!(refused(&added(blanket)), RulesError::Allows("lab/all".into()));
    let read = |baseline: &str| Base::read(SCHEMA, baseline).unwrap_err();
    assert_eq!(read(&format!("{BASELINE}{blanket}")), RulesError::NoAllowingRule);
    assert_eq!(read(r#"@id("grant") permit (principal, action, resource);"#), RulesError::NoAllowingRule);
    assert_eq!(read(r#"@id("a") forbid (principal, action, resource);"#), RulesError::NoAllowingRule);
}

// Trap 4: `@id` means nothing to Cedar.
#[test]
fn rules_are_known_by_their_id_or_not_loaded() {
    let rule = |id: &str| format!("{id} forbid (principal, action, resource) when {{ context.stream }};");
    assert_eq!(refused(&added(&rule(""))), RulesError::MissingId(0));
    assert_eq!(refused(&added(&rule(r#"@id("")"#))), RulesError::BadId(0));
    assert_eq!(refused(&added(&rule(r#"@id("A b")"#))), RulesError::BadId(0));
    let twice = format!("{0}{0}", rule(r#"@id("quiet")"#));
    assert_eq!(refused(&added(&twice)), RulesError::DuplicateId("lab/quiet".into()));
    // A lab's rule may share a name with the baseline's: the prefix keeps them apart.
    let mut streamed = facts();
    streamed.stream = true;
    expect!["deny: lab/seed"].assert_eq(&answer(&added(&rule(r#"@id("seed")"#)), &streamed));
}

#[test]
fn rules_that_do_not_validate_refuse_the_load() {
    for text in [
        "context.frobnicate",
        "context.stream > 1",
        "principal.citizenships.contains(\"US\")",
        "resource.state == 1",
        // A warning: it never holds.
        "false",
        // Confusable letters warn as well.
        "context.purpose == \"еvaluate\"",
    ] {
        let error = refused(&added(&format!(r#"@id("a") forbid (principal, action, resource) when {{ {text} }};"#)));
        assert!(matches!(error, RulesError::Invalid(_)), "{text}: {error:?}");
    }
    assert!(matches!(refused(&added("forbid")), RulesError::Syntax(_)));
    let template = r#"@id("t") forbid (principal == ?principal, action, resource);"#;
    assert_eq!(refused(&added(template)), RulesError::Template("t".into()));
}

#[test]
fn deep_rules_refuse_the_load_and_shallow_ones_always_answer() {
    let shapes: [fn(usize) -> String; 7] = [
        |n| format!("{}context.stream{}", "(".repeat(n), ")".repeat(n)),
        |n| format!("{}context.stream{}", "!(".repeat(n), ")".repeat(n)),
        |n| format!("{}context.seed", "if context.stream then true else ".repeat(n)),
        |n| format!("{}context.seed", "context.stream || ".repeat(n)),
        |n| format!("{}1 > context.minute", "1+".repeat(n)),
        |n| format!("context{} == context.run", ".run".repeat(n)),
        |n| format!("true }} {} when {{ context.seed", "unless { context.seed || context.stream }".repeat(n)),
    ];
    for shape in shapes {
        for n in [1, 16, 24, 64, 100, 600] {
            let text = format!(r#"@id("a") forbid (principal, action, resource) when {{ {} }};"#, shape(n));
            if text.len() > 32_768 {
                continue;
            }
            match Rules::new(&added(&text)) {
                Ok(rules) => {
                    assert!(n <= EXPRESSION_DEPTH_MAX, "{n}: {text}");
                    assert_ne!(rules.ask(&facts()).reasons, [ENGINE_ERROR], "{n}: {text}");
                }
                Err(RulesError::TooDeep) => assert!(n >= 16, "{n}: {text}"),
                // Some of these shapes make no sense to the validator.
                Err(RulesError::Invalid(_)) => assert!(n <= EXPRESSION_DEPTH_MAX, "{n}: {text}"),
                Err(error) => assert!(n > EXPRESSION_DEPTH_MAX, "{n}: {error:?}"),
            }
        }
    }
    assert_eq!(refused(&added(&"(".repeat(30_000))), RulesError::TooDeep);
    let string = format!(
        r#"@id("a") forbid (principal, action, resource) when {{ context.purpose == "{}" }};"#,
        "((\\\"".repeat(99)
    );
    assert!(Rules::new(&added(&string)).is_ok(), "brackets in a string are text");
}

#[test]
fn too_many_rules_refuse_the_load() {
    let rules: String = (0..=ADDED_RULES_MAX)
        .map(|i| format!(r#"@id("r{i}") forbid (principal, action, resource) when {{ context.seed }};"#))
        .collect();
    assert_eq!(refused(&added(&rules)), RulesError::TooMany(ADDED_RULES_MAX + 1));
}

#[test]
fn a_lab_can_add_hours() {
    let terms = added(
        r#"@id("hours") forbid (principal, action, resource)
           unless { context.weekday <= 4 && context.minuteOfDay >= 480 && context.minuteOfDay < 1080 };"#,
    );
    let mut facts = facts();
    (facts.trained_until_minute, facts.engaged_until_minute) = (i64::MAX, i64::MAX);
    // 2026-11-20 was a Friday; the minute is 12:00 UTC.
    facts.minute = 1_795_176_000 / 60;
    expect!["allow: grant"].assert_eq(&answer(&terms, &facts));
    facts.minute += 360;
    expect!["deny: lab/hours"].assert_eq(&answer(&terms, &facts));
    facts.minute += 1_080;
    expect!["deny: lab/hours"].assert_eq(&answer(&terms, &facts));
}

#[test]
fn digests_move_with_every_part() {
    let plain = crate::rules::digest(&terms(|_| {}));
    assert_ne!(plain, crate::rules::baseline_digest());
    assert_ne!(plain, crate::rules::digest(&added(" ")));
    assert_eq!(plain, crate::rules::digest(&terms(|json| json["instrument"] = "other".into())));
    assert!(version().starts_with("cedar-policy 4."));
}
