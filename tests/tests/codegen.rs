//! The committed code generated from `proto/` is what the `.proto` files say.
//!
//! `ANTEROOM_REGENERATE=1 cargo test --release --workspace --test codegen` writes it anew.

use std::{fmt::Write as _, fs, path::PathBuf};

use prost_reflect::{DescriptorPool, MessageDescriptor, Value};

fn proto_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../proto")
}

fn compile() -> protox::Compiler {
    let root = proto_dir().join("proto");
    let mut compiler = protox::Compiler::new([&root]).unwrap();
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(["anteroom/v1/record.proto", "anteroom/v1/anteroom.proto"]).unwrap();
    compiler
}

/// Compares `fresh` with the committed file, or writes it when asked to.
fn check(relative: &str, fresh: &str) {
    let path = proto_dir().join(relative);
    if std::env::var_os("ANTEROOM_REGENERATE").is_some() {
        fs::write(&path, fresh).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == fresh, "`proto/{relative}` differs from what the .proto files generate; regenerate it");
}

#[test]
fn stubs_match_the_proto_files() {
    let out = tempfile::tempdir().unwrap();
    let set = compile().file_descriptor_set();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".anteroom.v1.CallRequest.body")
        .bytes(".anteroom.v1.CallReply.body")
        .bytes(".anteroom.v1.CallEvent.data")
        .bytes(".anteroom.v1.ServeUp.data")
        .bytes(".anteroom.v1.Dispatch.body")
        .client_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .compile_fds(set)
        .unwrap();
    let fresh = fs::read_to_string(out.path().join("anteroom.v1.rs")).unwrap();
    check("src/rpc/anteroom.v1.rs", &fresh);
}

fn option(message: &MessageDescriptor, pool: &DescriptorPool, field: Option<u32>) -> Option<u32> {
    let (options, name) = match field {
        Some(number) => (message.get_field(number).unwrap().options(), "anteroom.v1.owner"),
        None => (message.options(), "anteroom.v1.kind"),
    };
    let extension = pool.get_extension_by_name(name).unwrap();
    options.has_extension(&extension).then(|| match options.get_extension(&extension).into_owned() {
        Value::U32(n) => n,
        Value::EnumNumber(n) => u32::try_from(n).unwrap(),
        other => panic!("unexpected option {other:?}"),
    })
}

#[test]
fn registry_matches_the_proto_files() {
    let compiler = compile();
    let bytes = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(bytes.as_slice()).unwrap();
    let header = pool.get_message_by_name("anteroom.v1.RecordHeader").unwrap();
    let mut kinds: Vec<(u32, MessageDescriptor)> =
        pool.all_messages().filter_map(|m| option(&m, &pool, None).map(|kind| (kind, m))).collect();
    kinds.sort_by_key(|(kind, _)| *kind);
    let owners = ["Scope", "Parties", "Lab", "Agency", "Caller"];
    let mut text = String::from(
        "// Generated from record.proto; `tests/tests/codegen.rs` keeps it so.\n\n\
         use super::{FieldSpec, KindSpec, Owner};\n\n\
         /// Every kind of record, ascending by number.\n\
         pub const KINDS: &[KindSpec] = &[\n",
    );
    for (kind, message) in &kinds {
        writeln!(
            text,
            "    KindSpec {{\n        kind: {kind},\n        name: \"{}\",\n        fields: &[",
            message.name()
        )
        .unwrap();
        let mut fields: Vec<_> = header.fields().map(|f| (f.number(), f.name().to_owned(), 0)).collect();
        for field in message.fields() {
            assert!(field.number() >= 16, "{} {}: event fields start at 16", message.name(), field.name());
            assert!(!field.is_map(), "records have no maps");
            let owner = option(message, &pool, Some(field.number())).unwrap_or(0);
            fields.push((field.number(), field.name().to_owned(), owner));
        }
        fields.sort();
        for (number, name, owner) in fields {
            let owner = owners[owner as usize];
            writeln!(text, "            FieldSpec {{ number: {number}, name: \"{name}\", owner: Owner::{owner} }},")
                .unwrap();
        }
        text.push_str("        ],\n    },\n");
    }
    text.push_str("];\n");
    check("src/ledger/registry.rs", &text);
}
