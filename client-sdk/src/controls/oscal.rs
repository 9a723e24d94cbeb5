//! The controls as a component definition of OSCAL 1.1.
//!
//! UUIDs are of version 5 (RFC 9562): SHA-1 over a namespace and a name, so that a part of the document keeps its UUID as long as its name
//! stays. The document's own is made from its contents, and changes with them.

use anteroom_proto::time::At;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{Control, controls};

/// The model's version.
pub const OSCAL_VERSION: &str = "1.1.3";
/// The namespace of names that are URLs, after RFC 9562.
const NAMESPACE: [u8; 16] =
    [0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8];
/// What names of parts begin with.
const NAME: &str = "urn:anteroom:oscal:component-definition";
/// The catalogue that the controls are of.
const CATALOG: &str = "https://raw.githubusercontent.com/usnistgov/oscal-content/main/nist.gov/SP800-53/rev5/json/NIST_SP-800-53_rev5_catalog.json";
/// The namespace of properties of our own.
const PROPERTIES: &str = "urn:anteroom:oscal";

/// The component definition, as of `made`.
#[must_use]
pub fn component_definition(made: At) -> Value {
    let requirements: Vec<Value> = controls().iter().map(requirement).collect();
    let component = json!({
        "uuid": uuid(&format!("{NAME}/component")),
        "type": "software",
        "title": "Anteroom",
        "description": "Voluntary pre-release model access: a broker that records every decision in a transparency log, and its clients.",
        "props": [{ "name": "version", "value": env!("CARGO_PKG_VERSION") }],
        "control-implementations": [{
            "uuid": uuid(&format!("{NAME}/nist-800-53-rev5")),
            "source": CATALOG,
            "description": "Auditing: NIST SP 800-53 revision 5, family AU, as far as this software bears on it.",
            "implemented-requirements": requirements,
        }],
    });
    let document = uuid(&format!("{NAME}#{component}"));
    json!({
        "component-definition": {
            "uuid": document,
            "metadata": {
                "title": "Anteroom: controls on auditing",
                "last-modified": made.to_string(),
                "version": env!("CARGO_PKG_VERSION"),
                "oscal-version": OSCAL_VERSION,
            },
            "components": [component],
        }
    })
}

fn requirement(control: &Control) -> Value {
    let Control { id, title, met, left, kinds, fields, codes, commands } = control;
    let prop = |name: &str, value: &str| json!({ "name": name, "ns": PROPERTIES, "value": value });
    let mut props: Vec<Value> = Vec::new();
    props.extend(kinds.iter().map(|kind| prop("record-kind", kind)));
    props.extend(fields.iter().map(|field| prop("record-field", field)));
    props.extend(codes.iter().map(|code| prop("refusal-code", code)));
    props.extend(commands.iter().map(|command| prop("command", &format!("anteroom {command}"))));
    json!({
        "uuid": uuid(&format!("{NAME}/{id}")),
        "control-id": id,
        "description": format!("{title}. {met}"),
        "props": props,
        "remarks": format!("Left to whoever runs it: {left}"),
    })
}

/// The UUID of version 5 of a name.
fn uuid(name: &str) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&NAMESPACE);
    context.update(name.as_bytes());
    let digest = context.finish();
    let mut bytes = [0_u8; 16];
    for (at, (to, from)) in bytes.iter_mut().zip(digest.as_ref()).enumerate() {
        *to = match at {
            // The version and the variant.
            6 => from & 0x0f | 0x50,
            8 => from & 0x3f | 0x80,
            _ => *from,
        };
    }
    let text = HEXLOWER.encode(&bytes);
    let mut out = String::new();
    for (at, digit) in text.char_indices() {
        if matches!(at, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_of_version_5_is_that_of_the_standard() {
        // RFC 9562, A.4, has one of the namespace of domain names; this is the same function's for URLs, from Python's `uuid`.
        assert_eq!(uuid("http://www.example.com/"), "fcde3c85-2270-590f-9e7c-ee003d65e0e2");
    }
}
