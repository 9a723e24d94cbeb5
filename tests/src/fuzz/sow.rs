//! Making the corpus: honest bytes from the simulated world, and bodies, texts and rules written by hand.

use std::{collections::BTreeMap, fs, io, path::Path};

use anteroom_policy::{command::Command, state::Part};
use anteroom_proto::{
    ledger::{checkpoint::Checkpoint, proof::TlogProof, record::Audience, tiles::Tile},
    statement::envelope::to_file,
};
use prost::Message as _;

use super::targets::{formats_index, statements_index};
use crate::sim::world::{self, World};

/// A world with every kind of record.
const SEED: u64 = 11;
const STEPS: u64 = 700;
/// Worlds whose acts are taken, from the beginning: only the newest acts of a world are at hand.
const WORLDS: u64 = 12;
const FIRST_STEPS: u64 = 60;
/// Longest record in the corpus.
const BYTES_MAX: usize = 4096;

/// Writes the corpus to a folder.
///
/// # Errors
/// The world fails, or a file cannot be written.
pub fn sow(dir: &Path) -> Result<usize, String> {
    let world = world::played(SEED, STEPS)?;
    let mut files = BTreeMap::new();
    files.extend(BODIES.iter().map(|(name, first, body)| (format!("body/{name}"), with(*first, body.as_bytes()))));
    files.extend(TEXTS.iter().map(|(name, first, text)| (format!("scan/{name}"), with(*first, text.as_bytes()))));
    files.extend(RULES.iter().map(|(name, text)| (format!("rules/{name}"), text.as_bytes().to_vec())));
    for more in SEED..SEED + WORLDS {
        statements(&world::played(more, FIRST_STEPS)?, &mut files);
    }
    formats(&world, &mut files)?;
    let write = |name: &str, bytes: &[u8]| -> io::Result<()> {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(path, bytes)
    };
    for (name, bytes) in &files {
        write(name, bytes).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(files.len())
}

fn with(first: u8, bytes: &[u8]) -> Vec<u8> {
    [&[first], bytes].concat()
}

fn statements(world: &World, files: &mut BTreeMap<String, Vec<u8>>) {
    for step in &world.history {
        let Command::Act(act) = &step.command else { continue };
        let Some(which) = statements_index(&act.statement.payload_type) else { continue };
        let name = act.statement.payload_type.trim_start_matches("application/vnd.anteroom.").replace("+json", "");
        files.entry(format!("statements/{name}")).or_insert_with(|| with(which, &act.statement.payload));
        if let Ok(text) = to_file(&act.statement) {
            let which = statements_index("file").unwrap_or(0);
            files.entry("statements/file".to_owned()).or_insert_with(|| with(which, text.as_bytes()));
        }
    }
    let which = statements_index("terms").unwrap_or(0);
    if let Some(plan) = world.plans.first()
        && let Ok(terms) = serde_json::to_vec_pretty(&*plan.terms)
    {
        files.insert("statements/terms".to_owned(), with(which, &terms));
    }
}

fn formats(world: &World, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let of = |name: &str| formats_index(name).unwrap_or(0);
    for durable in world.durable.iter().filter(|durable| durable.sealed.record.bytes().len() <= BYTES_MAX) {
        let (record, kind) = (&durable.sealed.record, durable.sealed.record.spec().name);
        files.entry(format!("formats/record-{kind}")).or_insert_with(|| with(of("record"), record.bytes()));
        if matches!(kind, "CallAdmitted" | "RosterPublished") {
            let opening = record.open(&durable.sealed.seed, Audience::LAB).encode_to_vec();
            files.entry(format!("formats/opening-{kind}")).or_insert_with(|| with(of("opening"), &opening));
        }
    }
    for part in world.core.state().parts() {
        let kind = part.scope.to_string();
        let kind = kind.split(['/', '-']).next().unwrap_or_default().to_owned();
        let encoded = Part::encode(&part);
        if encoded.len() <= BYTES_MAX {
            files.entry(format!("formats/part-{kind}")).or_insert_with(|| with(of("part"), &encoded));
        }
        files.entry(format!("formats/scope-{kind}")).or_insert_with(|| with(of("scope"), &part.scope.to_bytes()));
        files
            .entry(format!("formats/name-{kind}"))
            .or_insert_with(|| with(of("scope"), part.scope.to_string().as_bytes()));
    }
    let origin = world.signer.verifier().name().clone();
    let checkpoint =
        Checkpoint::new(origin, world.core.size(), world.core.root()).map_err(|error| error.to_string())?;
    let note = checkpoint.sign(&world.signer).map_err(|error| error.to_string())?;
    files.insert("formats/checkpoint".to_owned(), with(of("checkpoint"), checkpoint.encode().as_bytes()));
    files.insert("formats/note".to_owned(), with(of("note"), note.encode().as_bytes()));
    files.insert("formats/key".to_owned(), with(of("key"), world.signer.verifier().to_string().as_bytes()));
    let path = world.tree.inclusion_proof(3, world.core.size()).map_err(|error| error.to_string())?;
    let proof = TlogProof::new(3, path, note).and_then(|proof| proof.with_extra(b"more".to_vec()));
    let proof = proof.map_err(|error| error.to_string())?;
    files.insert("formats/proof".to_owned(), with(of("proof"), proof.to_string().as_bytes()));
    for (name, path, each) in [("hashes", "tile/0/000.p/3", 32), ("entries", "tile/entries/x001/234.p/2", 48)] {
        let tile = Tile::parse(path).map_err(|error| error.to_string())?;
        let mut bytes = format!("{path}\n").into_bytes();
        for number in 0..tile.width() {
            if each == 48 {
                bytes.extend([0, 48]);
            }
            bytes.extend(vec![u8::try_from(number).unwrap_or(0); each]);
        }
        files.insert(format!("formats/tile-{name}"), with(of("tile"), &bytes));
    }
    Ok(())
}

const BODIES: [(&str, u8, &str); 16] = [
    ("chat", 0, r#"{"model":"m1","messages":[{"role":"user","content":"hello"}],"max_tokens":9}"#),
    (
        "chat-parts",
        4,
        r#"{"model":"m1","stream":true,"n":2,"seed":7,"top_k":4,"messages":[{"role":"system","content":"be brief, please, whoever you are today"},{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"c","content":"done"},{"role":"assistant","content":"so"}]}"#,
    ),
    (
        "chat-tools",
        0,
        r#"{"model":"m1","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}},{"type":"web_search"}],"tool_choice":"auto","parallel_tool_calls":false}"#,
    ),
    (
        "chat-logprobs",
        0,
        r#"{"model":"m1","messages":[{"role":"user","content":"x"}],"logprobs":true,"top_logprobs":3,"temperature":0.5,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}}}"#,
    ),
    (
        "chat-bias",
        0,
        r#"{"model":"m1","messages":[{"role":"user","content":"x"}],"logit_bias":{"50256":-100},"stop":["a","b"]}"#,
    ),
    (
        "chat-reasoning",
        0,
        r#"{"model":"m1","messages":[{"role":"user","content":"x"}],"reasoning":{"effort":"low","summary":"auto"},"include_reasoning":true,"reasoning_effort":"high"}"#,
    ),
    (
        "chat-store",
        0,
        r#"{"model":"m1","messages":[{"role":"user","content":"x"}],"store":false,"modalities":["text"],"metadata":{"a":"b"},"user":"u"}"#,
    ),
    (
        "completions",
        1,
        r#"{"model":"m1","prompt":"once","max_tokens":5,"best_of":2,"logprobs":0,"echo":false,"suffix":"end"}"#,
    ),
    ("completions-tokens", 1, r#"{"model":"m1","prompt":[[1,2],[3]],"seed":-1}"#),
    ("embeddings", 2, r#"{"model":"m1","input":["a","b"],"encoding_format":"float","dimensions":8}"#),
    ("responses", 3, r#"{"model":"m1","input":"hello","instructions":"be brief","max_output_tokens":9,"stream":true}"#),
    (
        "responses-items",
        3,
        r#"{"model":"m1","input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},{"type":"reasoning","summary":[{"type":"summary_text","text":"s"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"o"}],"include":["reasoning.encrypted_content"],"text":{"format":{"type":"json_object"}}}"#,
    ),
    (
        "messages",
        8,
        r#"{"model":"m1","max_tokens":9,"system":"be brief, please, whoever you are today","messages":[{"role":"user","content":"hello"}],"stream":true,"stop_sequences":["so"],"thinking":{"type":"enabled","budget_tokens":1024},"output_config":{"effort":"low","format":{"type":"json_schema","schema":{}}}}"#,
    ),
    (
        "messages-blocks",
        12,
        r#"{"model":"m1","max_tokens":9,"top_k":4,"tools":[{"name":"f","input_schema":{"type":"object"}},{"type":"web_search_20260318","name":"web_search"}],"system":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"messages":[{"role":"user","content":[{"type":"text","text":"look"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"document","title":"t","source":{"type":"content","content":[{"type":"text","text":"a paper"}]}}]},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"c2ln"},{"type":"tool_use","id":"t","name":"f","input":{"a":1}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"done"}]}]},{"role":"assistant","content":"so"}]}"#,
    ),
    (
        "escapes",
        0,
        "{\"mod\\u0065l\":\"m1\",\"messages\":[{\"role\":\"user\",\"content\":\"\\ud83d\\ude00 \u{200b}\"}]}",
    ),
    (
        "deep",
        0,
        r#"{"model":"m1","messages":[{"role":"user","content":"x","metadata":{"a":[[[[{"b":"c"}]]]]}}],"prediction":{"type":"content","content":"x"}}"#,
    ),
];

const TEXTS: [(&str, u8, &str); 13] = [
    ("canary", 200, "well: zephyr-quartz-0417-lantern and more"),
    ("canary-disguised", 201, "zephyr\u{2011}quartz-\u{feff}0417-LANTERN"),
    ("banner", 202, "TOP SECRET//SI//NOFORN\ntext"),
    ("banner-line", 203, "text\n  **SECRET//NOFORN**\n"),
    ("banner-wide", 204, "ＴＯＰ　ＳＥＣＲＥＴ／／SI"),
    ("portion", 205, "(S//NF) A paragraph. (CUI) Another. (U) A third."),
    ("cui", 206, "CUI//SP-PROPIN//NOFORN\nA paragraph. not NOFORN. PROPIN"),
    ("code", 207, "let client_secret = env(\"SECRET\"); // secret//comment\nhttps://secret//path"),
    ("plain", 208, "the CUI program, a character user interface (cui), cuisine"),
    ("near", 209, "zephyr-quartz-0417-zephyr-quartz-0417-lanterzephyr-"),
    (
        "events",
        1,
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"zephyr-\"}}]}\n{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"quartz-0417-lantern\"}}]}\n[DONE]",
    ),
    (
        "events-messages",
        3,
        "{\"type\":\"message_start\",\"message\":{\"role\":\"assistant\",\"content\":[]}}\n{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"zephyr-\"}}\n{\"type\":\"ping\"}\n{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"quartz-0417-lantern\"}}\n{\"type\":\"message_stop\"}",
    ),
    (
        "events-other",
        2,
        "{\"type\":\"response.output_text.delta\",\"output_index\":0,\"delta\":\"SECRET//\"}\n{\"type\":\"response.completed\",\"response\":{\"output\":[{\"content\":[{\"text\":\"NOFORN\"}]}]}}\n[DONE]",
    ),
];

const RULES: [(&str, &str); 9] = [
    ("empty", ""),
    (
        "few-tokens",
        "@id(\"few-tokens\")\nforbid (principal, action in Action::\"Infer\", resource)\nwhen { context.tokensAsked > 4096 };\n",
    ),
    (
        "office-hours",
        "// Weekdays alone.\n@id(\"office-hours\")\nforbid (principal, action, resource)\nunless { context.weekday < 5 && context.minuteOfDay >= 480 && context.minuteOfDay < 1080 };\n",
    ),
    (
        "no-tools",
        "@id(\"no-tools\")\nforbid (principal, action == Action::\"Chat\", resource)\nunless { context.tools.isEmpty() };\n@id(\"own-people\")\nforbid (principal, action in Action::\"Infer\", resource)\nunless { principal.employer == \"agency\" && principal.usPerson };\n",
    ),
    (
        "overflow",
        "@id(\"sum\")\nforbid (principal, action in Action::\"Infer\", resource)\nwhen { context.tokensAsked + 9223372036854775807 > 1 };\n",
    ),
    (
        "like",
        "@id(\"like\")\nforbid (principal, action in Action::\"Infer\", resource)\nwhen { context.network like \"h*\" || context.purpose == \"probe\" };\n",
    ),
    (
        "if",
        "@id(\"if\")\nforbid (principal, action in Action::\"Infer\", resource)\nwhen { if context.stream then context.n > 1 else context.images > 0 };\n",
    ),
    ("permit", "@id(\"all\")\npermit (principal, action, resource);\n"),
    (
        "marks",
        "@id(\"marks\")\nforbid (principal, action in Action::\"Infer\", resource)\nunless { context.mark.caveats.containsAny([\"PROPIN\", \"NOFORN\"]) && resource.mark.level >= context.mark.level && !context.scanHits.contains(\"canary\") };\n",
    ),
];
