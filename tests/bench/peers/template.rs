//! Configurations of contenders, as people would write them, with places to fill in and parts that only one of two variants has.

use super::super::Fallible;

/// Fills in `text`: `{{name}}` becomes its value; of lines between `# if VARIANT` and `# end` only those of `variant` stay.
pub(super) fn fill(text: &str, variant: &str, values: &[(&str, String)]) -> Fallible<String> {
    let (mut out, mut keep) = (String::new(), true);
    for line in text.lines() {
        match line.trim().strip_prefix("# if ") {
            Some(wanted) => keep = wanted == variant,
            None if line.trim() == "# end" => keep = true,
            None if keep => {
                out.push_str(line);
                out.push('\n');
            }
            None => {}
        }
    }
    for (name, value) in values {
        out = out.replace(&format!("{{{{{name}}}}}"), value);
    }
    match out.split_once("{{").and_then(|(_, rest)| rest.split_once("}}")) {
        Some((name, _)) => Err(format!("a template asks for `{name}`, which nobody fills in").into()),
        None => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_has_its_own_lines_and_every_place_is_filled() {
        let text = "a {{x}}\n  # if bare\n  b\n  # end\n# if checked\nc {{x}}{{y}}\n# end\nd";
        let values = [("x", "1".to_owned()), ("y", "2".to_owned())];
        assert_eq!(fill(text, "bare", &values).unwrap(), "a 1\n  b\nd\n");
        assert_eq!(fill(text, "checked", &values).unwrap(), "a 1\nc 12\nd\n");
        assert!(fill(text, "checked", &values[..1]).unwrap_err().to_string().contains("`y`"));
        // Only what a variant has must be filled.
        assert_eq!(fill(text, "bare", &values[..1]).unwrap(), "a 1\n  b\nd\n");
    }
}
