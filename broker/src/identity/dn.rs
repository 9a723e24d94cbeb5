//! Distinguished names as text, so that a mapping file can name them.
//!
//! The form is RFC 4514's, the one `openssl x509 -noout -subject -issuer -nameopt RFC2253,-esc_msb` prints.
//!
//! **Invariant:** two different names never share a text: every separator inside a value is escaped, and a name with an
//! attribute or a string type not listed here has no text at all.

use x509_parser::x509::X509Name;

/// The text of `name`, or none if it holds something this form cannot show without doubt.
pub(crate) fn text(name: &X509Name<'_>) -> Option<String> {
    let mut sets = Vec::new();
    for set in name.iter() {
        let mut parts = Vec::new();
        for attribute in set.iter() {
            let kind = short_name(&attribute.attr_type().to_id_string())?;
            parts.push(format!("{kind}={}", escape(attribute.as_str().ok()?)));
        }
        sets.push(parts.join("+"));
    }
    if sets.is_empty() {
        return None;
    }
    sets.reverse();
    Some(sets.join(","))
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "2.5.4.46" => "dnQualifier",
        "2.5.4.97" => "organizationIdentifier",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, letter) in value.chars().enumerate() {
        match letter {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => {
                out.push('\\');
                out.push(letter);
            }
            '#' if index == 0 => out.push_str("\\#"),
            ' ' if index == 0 || index == last => out.push_str("\\ "),
            control if control.is_ascii_control() => out.push_str(&format!("\\{:02X}", u32::from(control))),
            plain => out.push(plain),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_pass_for_two() {
        assert_eq!(escape("Alice,O=Other"), "Alice\\,O=Other");
        assert_eq!(escape("a+b\\"), "a\\+b\\\\");
        assert_eq!(escape(" #x "), "\\ #x\\ ");
        assert_eq!(escape("#x\n"), "\\#x\\0A");
        assert_eq!(escape(" "), "\\ ");
        assert_eq!(escape("Ünal"), "Ünal");
    }
}
