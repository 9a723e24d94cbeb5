//! `anteroom chat`: a model's words as they come, each call verified to its end.

mod talk;
mod typed;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use anteroom_proto::{
    names::{CallId, GrantId, RunId},
    time::At,
};
use anteroom_sdk::{
    error::Refused,
    evaluator::{Evaluator, Label, RecordedCall, Route, StreamItem},
    home::Home,
    store::KeptReceipt,
    system,
    verify::receipt::VerifiedCall,
};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use crate::{builds::note, content::Keep, context::Ctx, fail::Fail, receipt::checked};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom chat GRANT Which of these functions can overflow?
  anteroom chat GRANT                                 # a conversation; /help shows its commands, Ctrl-C gives up an answer
  anteroom chat GRANT --run cyber-1 --max-tokens 400 - < question.txt

A cut prints what, who, when and the next step on standard error and exits with 4 if access has ended.";

/// Asks a model.
#[derive(Args)]
pub(crate) struct Chat {
    /// The grant
    grant: GrantId,
    /// What to ask; `-` reads standard input [default: a conversation on a terminal, else standard input]
    prompt: Vec<String>,
    /// Talk turn by turn also where standard input is no terminal: a question or command a line
    #[arg(long, conflicts_with = "prompt")]
    interactive: bool,
    /// The run [default: that of the newest run credential]
    #[arg(long)]
    run: Option<RunId>,
    /// What to tell the model first
    #[arg(long)]
    system: Option<String>,
    /// Most output tokens
    #[arg(long)]
    max_tokens: Option<u64>,
    /// Wait for the whole answer
    #[arg(long)]
    no_stream: bool,
    /// Keep what was sent and what came, as `CALL.request` and `CALL.answer`, for `anteroom audit prove-content`
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(crate) async fn run(ctx: &Ctx, args: Chat) -> Result<(), Fail> {
    if args.interactive || (args.prompt.is_empty() && std::io::stdin().is_terminal()) {
        return talk::run(ctx, args).await;
    }
    let prompt = match args.prompt.as_slice() {
        [] => {
            let piped = ctx.read_text(Path::new("-"))?;
            if piped.trim().is_empty() {
                return Err(Fail::Usage(
                    "there is nothing to ask: name it, pipe it in, or talk on a terminal".to_owned(),
                ));
            }
            piped
        }
        [only] if only == "-" => ctx.read_text(Path::new("-"))?,
        words => words.join(" "),
    };
    let home = ctx.home()?;
    let evaluator = home.evaluator(args.grant, args.run.as_ref()).await?;
    let line = evaluator.dossier().terms().model.line.to_string();
    let mut messages = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": prompt}));
    let mut body = json!({"model": line, "messages": messages, "stream": !args.no_stream});
    if let (Some(tokens), Some(fields)) = (args.max_tokens, body.as_object_mut()) {
        fields.insert("max_tokens".to_owned(), tokens.into());
    }
    let body = Bytes::from(body.to_string());
    let mut keep = args.keep.as_ref().map(|dir| Keep::new(dir, &body)).transpose()?;
    if args.no_stream {
        let answer = evaluator.complete(Route::Chat, body).await?;
        shown(ctx, Some(&answer.label));
        note(ctx, &evaluator.dossier(), system::now());
        if let Some(keep) = &mut keep {
            keep.body(&answer.body);
            keep.write(answer.call.receipt().call())?;
        }
        ctx.out.words(&format!("{}\n", answered(&answer.body)))?;
        return ended(ctx, &answer.call, answer.status);
    }
    let mut stream = evaluator.stream(Route::Chat, body).await?;
    let mut begun = false;
    loop {
        match stream.next().await {
            Ok(Some(StreamItem::Admitted(_))) => {
                shown(ctx, stream.label());
                note(ctx, &evaluator.dossier(), system::now());
            }
            Ok(Some(StreamItem::Data(data))) => {
                if let Some(keep) = &mut keep {
                    keep.event(&data);
                }
                if let Some(words) = words(&data) {
                    begun = true;
                    ctx.out.words(&words)?;
                }
            }
            Ok(Some(StreamItem::End { status, call, .. })) => {
                ctx.out.raw(b"\n")?;
                if let Some(keep) = &keep {
                    keep.write(stream.call())?;
                }
                return ended(ctx, &call, status);
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                if begun {
                    ctx.out.raw(b"\n")?;
                }
                if let Some(keep) = &keep {
                    keep.write_anyway(ctx, stream.call());
                }
                keep_cut(ctx, &home, &evaluator, stream.call()).await;
                return Err(match error.refused() {
                    Some(refused) if begun => Fail::Cut(Box::new(refused.clone())),
                    Some(_) | None => error.into(),
                });
            }
        }
    }
}

/// Says how an answer has to be handled, beside it and never in it.
pub(crate) fn shown(ctx: &Ctx, label: Option<&Label>) {
    if let Some(line) = label.and_then(Label::line) {
        ctx.out.note(&line);
    }
}

/// The words of one event; none in its last one, which says `[DONE]`.
fn words(data: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let delta = value.pointer("/choices/0/delta/content").or_else(|| value.pointer("/choices/0/text"))?;
    delta.as_str().map(str::to_owned)
}

/// The words of a whole answer; one that has none is shown as it is.
fn answered(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = value.pointer("/choices/0/message/content").and_then(Value::as_str);
    words.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

/// What is known of a call whose receipt held: completed, cut, or refused by the model server.
pub(crate) fn ended(ctx: &Ctx, call: &VerifiedCall, status: u32) -> Result<(), Fail> {
    let receipt = call.receipt();
    if call.end() != "completed" {
        note_call(ctx, receipt.call());
        let cut = receipt.finished().map(|(_, event)| At::clamped(event.cut_ms)).filter(|at| at.ms() > 0);
        return Err(Fail::cut(call.end(), cut_refusal(receipt.grant(), cut)));
    }
    if (200..300).contains(&status) {
        return Ok(());
    }
    note_call(ctx, receipt.call());
    Err(Fail::Local(format!("the model server answered with status {status}")))
}

fn cut_refusal(grant: GrantId, at: Option<At>) -> Refused {
    Refused {
        code: String::new(),
        text: String::new(),
        grant: Some(grant),
        at,
        next: None,
        status: tonic::Code::PermissionDenied,
        retry_after: None,
    }
}

/// Keeps what is on record of a call that was cut. The cut counts before it is on record, so this may come too early; then the
/// person is told how to fetch it.
async fn keep_cut(ctx: &Ctx, home: &Home, evaluator: &Evaluator, call: CallId) {
    let Ok(RecordedCall { receipt: Some(receipt), outcome, .. }) = evaluator.recorded(call).await else {
        // It was refused before it was on record as a call.
        return;
    };
    let kept = KeptReceipt {
        call: call.as_bytes().to_vec(),
        receipt: Some(receipt),
        outcome,
        kept_ms: system::now().ms(),
        witnessed: None,
    };
    let whole = kept.receipt.as_ref().is_some_and(|receipt| receipt.finished.is_some());
    if whole && checked(home, &kept, call).is_ok() && evaluator.receipts().keep(kept).await.is_ok() {
        note_call(ctx, call);
    } else {
        ctx.out.note(&format!("call {call}; `anteroom receipt fetch {call}` fetches what is on record"));
    }
}

fn note_call(ctx: &Ctx, call: CallId) {
    ctx.out.note(&format!("call {call}; `anteroom receipt show {call}` shows what is on record"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_are_printed() {
        let event = br#"{"choices":[{"delta":{"content":"a\u001b"}}]}"#;
        assert_eq!(words(event).as_deref(), Some("a\u{1b}"));
        assert_eq!(words(b"[DONE]"), None);
        assert_eq!(words(br#"{"choices":[{"delta":{"role":"assistant"}}]}"#), None);
        assert_eq!(words(br#"{"usage":{}}"#), None);
    }
}
