//! What is typed in a conversation, and what stands above the prompt.

use std::io::{BufRead as _, Read as _};

use anteroom_proto::{
    names::RunId,
    rpc::{BudgetLine, GrantSummary},
    time::At,
};
use tokio::sync::mpsc;

use crate::summary::brief;

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// What is left, on the broker's word.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Left {
    phase: String,
    end: Option<At>,
    calls: Option<u64>,
    tokens: Option<u64>,
}

impl Left {
    pub(super) fn of(summary: &GrantSummary, run: &RunId) -> Self {
        let left = |name: &str| {
            let own = format!("run/{run}/{name}");
            let found = summary.budgets.iter().filter(|line| line.name == name || line.name == own);
            found.map(|line: &BudgetLine| line.limit.saturating_sub(line.settled).saturating_sub(line.held)).min()
        };
        Self {
            phase: summary.phase.clone(),
            end: (summary.end_ms != 0).then(|| At::clamped(summary.end_ms)),
            calls: left("calls"),
            tokens: left("tokens"),
        }
    }

    pub(super) fn words(&self, now: At) -> String {
        let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        let time =
            self.end.map_or_else(|| "not begun".to_owned(), |end| format!("{} left", brief(end.since(now).max(0))));
        let paused = if self.phase == "paused" { " | PAUSED" } else { "" };
        format!("{} calls, {} tokens left | {time}{paused}", number(self.calls), number(self.tokens))
    }
}

/// What a line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Nothing,
    Ask(String),
    Help,
    Marking(Option<String>),
    System(Option<String>),
    New,
    Save(String),
    Quit,
    Unknown(String),
}

impl Said {
    pub(super) fn parse(line: &str) -> Self {
        let line = line.trim();
        if line.is_empty() {
            return Self::Nothing;
        }
        let Some(command) = line.strip_prefix('/') else { return Self::Ask(line.to_owned()) };
        if command.starts_with('/') {
            return Self::Ask(command.to_owned());
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = Some(rest.trim()).filter(|rest| !rest.is_empty()).map(str::to_owned);
        match (name, rest) {
            ("help" | "?", _) => Self::Help,
            ("marking", rest) => Self::Marking(rest),
            ("system", rest) => Self::System(rest),
            ("new", _) => Self::New,
            ("save", Some(file)) => Self::Save(file),
            ("quit" | "exit", _) => Self::Quit,
            _ => Self::Unknown(line.to_owned()),
        }
    }
}

/// Lines of standard input as they come; a thread reads, since nothing else can wait for a terminal.
pub(super) fn lines() -> mpsc::Receiver<Result<String, &'static str>> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut whole = String::new();
        loop {
            let mut bytes = Vec::new();
            let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).unwrap_or(0);
            let long = u64::try_from(read).is_ok_and(|read| read >= LINE_BYTES_MAX) && !bytes.ends_with(b"\n");
            let line = if long || u64::try_from(whole.len()).is_ok_and(|bytes| bytes > LINE_BYTES_MAX) {
                whole.clear();
                Err("the line is too long; nothing was asked")
            } else {
                String::from_utf8(bytes).map_err(|_| "the line is not UTF-8; nothing was asked")
            };
            match line {
                Ok(line) if read > 0 && line.trim_end_matches(['\r', '\n']).ends_with('\\') => {
                    whole.push_str(line.trim_end_matches(['\r', '\n']).trim_end_matches('\\'));
                    whole.push('\n');
                    continue;
                }
                Ok(line) => whole.push_str(&line),
                Err(why) => {
                    if sender.blocking_send(Err(why)).is_err() {
                        return;
                    }
                    continue;
                }
            }
            let said = std::mem::take(&mut whole);
            let over = read == 0;
            if !(over && said.is_empty()) && sender.blocking_send(Ok(said)).is_err() {
                return;
            }
            if over {
                return;
            }
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;

    #[test]
    fn lines_are_questions_unless_they_begin_with_one_slash() {
        let some = |text: &str| Some(text.to_owned());
        for (line, expected) in [
            ("  \n", Said::Nothing),
            ("what is an anteroom?\n", Said::Ask("what is an anteroom?".to_owned())),
            ("//etc/hosts is what?", Said::Ask("/etc/hosts is what?".to_owned())),
            ("/help", Said::Help),
            ("/marking CUI//NOFORN\r\n", Said::Marking(some("CUI//NOFORN"))),
            ("/marking", Said::Marking(None)),
            ("/system  be brief ", Said::System(some("be brief"))),
            ("/system", Said::System(None)),
            ("/new", Said::New),
            ("/save a b.json", Said::Save("a b.json".to_owned())),
            ("/save", Said::Unknown("/save".to_owned())),
            ("/quit", Said::Quit),
            ("/sudo", Said::Unknown("/sudo".to_owned())),
        ] {
            assert_eq!(Said::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_left_is_the_lesser_of_grant_and_run() {
        let line = |name: &str, limit, settled, held| BudgetLine { name: name.to_owned(), limit, settled, held };
        let summary = GrantSummary {
            phase: "paused".to_owned(),
            end_ms: 7_200_000,
            budgets: vec![
                line("calls", 100, 10, 1),
                line("tokens", 5_000, 0, 0),
                line("run/run-a/calls", 50, 48, 1),
                line("run/run-b/calls", 50, 50, 0),
                line("run/run-a/tokens", 9_000, 0, 0),
            ],
            ..GrantSummary::default()
        };
        let left = Left::of(&summary, &RunId::parse("run-a").unwrap());
        let words = "1 calls, 5000 tokens left | 1 h 0 min left | PAUSED";
        assert_eq!(left.words(At::clamped(3_600_000)), words);
        assert_eq!(Left::default().words(At::clamped(0)), "? calls, ? tokens left | not begun");
    }
}
