//! Signing terms after reading what they mean, and only then.
//!
//! **Invariant:** whoever sits at a terminal sees the summary, the lab's rules in English and the SHA-256 that the signature covers
//! before they are asked, and nothing but the word asked for is a yes.

use std::io::{self, BufRead, IsTerminal, Write};

use anteroom_policy::rules::plain::visible;
use anteroom_proto::{
    names::{Digest, GrantId},
    statement::terms::Terms,
};

use crate::{explain::explain, fail::Fail, page, policy::shown};

/// What a person is asked to say yes to.
pub(crate) struct Question<'a> {
    /// The terms.
    pub(crate) terms: &'a Terms,
    /// SHA-256 of their bytes.
    pub(crate) digest: Digest,
    /// What was verified before, in a sentence.
    pub(crate) before: &'a str,
    /// The word that means yes.
    pub(crate) word: &'a str,
}

/// Whether somebody is here to be asked.
pub(crate) fn somebody() -> bool {
    io::stdin().is_terminal()
}

/// Shows what would be signed on standard error, so that standard output holds results alone, and asks.
pub(crate) fn confirm(question: &Question<'_>) -> Result<(), Fail> {
    ask(question, &mut io::stderr().lock(), &mut io::stdin().lock())
}

/// Says what would end for good, and asks for the grant's name.
pub(crate) fn confirm_end(grant: GrantId, what: &str) -> Result<(), Fail> {
    let text = format!("{what}\nThis is final: nobody can take it back. Type the grant's name: ");
    typed(&text, &grant.to_string(), &mut io::stderr().lock(), &mut io::stdin().lock())
}

fn ask(question: &Question<'_>, out: &mut impl Write, answer: &mut impl BufRead) -> Result<(), Fail> {
    typed(&summary(question)?, question.word, out, answer)
}

/// Nothing but the word is a yes.
fn typed(text: &str, word: &str, out: &mut impl Write, answer: &mut impl BufRead) -> Result<(), Fail> {
    out.write_all(text.as_bytes())?;
    out.flush()?;
    let mut said = String::new();
    answer.read_line(&mut said)?;
    if said.trim() == word { Ok(()) } else { Err(Fail::Local("nothing was signed".to_owned())) }
}

fn summary(question: &Question<'_>) -> Result<String, Fail> {
    let Question { terms, digest, before, word } = question;
    let lines = explain(terms);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, meaning) in lines {
        text.push_str(&format!("{:width$}  {meaning}\n", visible(&name, false)));
    }
    let (added, base) = page::rules(terms)?;
    if added.is_empty() {
        text.push_str("\nThe lab adds no rules.\n");
    } else {
        text.push_str(&format!("\nThe lab adds these rules:\n\n{}", shown::rules(&added, false)));
    }
    text.push_str(&format!(
        "\nThe baseline's {} rules are in force as well: `anteroom policy show --english`. All of it on one page: `anteroom grant \
         page`.\n\nSigning is voluntary, and nobody but the lab decides on the model's release. {before} You sign the terms' bytes \
         with SHA-256\n{digest}\nDo so in your organisation's name? Type `{word}`: ",
        base.len()
    ));
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::policy::sample;

    fn answered(said: &str, additions: &str) -> (Result<(), Fail>, String) {
        let mut terms = sample::terms().unwrap();
        additions.clone_into(&mut terms.policy.additions);
        let question = Question { terms: &terms, digest: Digest::of(b"x"), before: "Checked.", word: "accept" };
        let mut out = Vec::new();
        let answer = ask(&question, &mut out, &mut said.as_bytes());
        (answer, String::from_utf8(out).unwrap())
    }

    #[test]
    fn only_the_word_is_a_yes() {
        for yes in ["accept", "accept\n", "  accept\r\n"] {
            assert!(answered(yes, "").0.is_ok(), "{yes:?}");
        }
        for no in ["", "\n", "y\n", "yes\n", "Accept\n", "accept it\n", "no\naccept\n"] {
            assert!(matches!(answered(no, "").0, Err(Fail::Local(_))), "{no:?}");
        }
    }

    #[test]
    fn the_digest_and_the_labs_rules_are_shown_first() {
        let (_, text) = answered("", "@id(\"quiet\") forbid (principal, action, resource) when { context.stream };");
        assert!(text.contains(&Digest::of(b"x").to_string()), "{text}");
        assert!(
            text.contains("lab/quiet refuses") && text.contains("when the call asks for a streamed answer."),
            "{text}"
        );
        assert!(text.contains("voluntary"));
    }

    #[test]
    fn rules_that_cannot_be_read_are_not_signed() {
        assert!(matches!(answered("accept", "nonsense").0, Err(Fail::Local(_))));
    }
}
