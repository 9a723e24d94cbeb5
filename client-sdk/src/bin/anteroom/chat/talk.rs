//! `anteroom chat` as a conversation: turn by turn, with marking, budget and time in sight.
//!
//! **Invariant:** every turn is a call of its own, recorded and verified like any other, and what was said stays in this process
//! unless `/save` writes it. Ctrl-C gives up the answer under way, never the conversation.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anteroom_policy::{marking, refusal::Refusal};
use anteroom_proto::{
    names::{CallId, GrantId, RunId},
    rpc::Marking,
};
use anteroom_sdk::{
    error::{Error, RefusalClass},
    evaluator::{CallOptions, Evaluator, Label, Route, StreamItem},
    home::{Home, Use},
    system,
    verify::receipt::VerifiedCall,
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tonic::transport::Channel;

use super::{
    Chat, answered, ended, keep_cut, shown,
    typed::{Left, Said, lines},
    words,
};
use crate::{content::Keep, context::Ctx, fail::Fail, output::Format};

const HELP: &str = "\
/help              this
/marking [BANNER]  declare what you ask as this from here on, such as CUI//NOFORN; without a banner, as the grant's own
/system [TEXT]     tell the model this first from here on; without a text, nothing
/new               begin again: what was said is not sent along any more
/save FILE         write the conversation into a new file that only you can read
/quit              end it; so does Ctrl-D
A line that begins with // is sent with one / less. A line that ends with \\ goes on in the next.
Ctrl-C gives up the answer under way; the call counts as far as it came.";

/// One question with its answer.
#[derive(Serialize)]
struct Turn {
    asked: String,
    answered: String,
    /// Whether the answer came to its end.
    whole: bool,
    call: String,
    /// How the answer has to be handled.
    marking: Option<String>,
}

/// A conversation as it is saved.
#[derive(Serialize)]
struct Saved<'a> {
    grant: GrantId,
    run: &'a RunId,
    line: &'a str,
    system: Option<&'a str>,
    saved: String,
    turns: &'a [Turn],
}

struct Talk<'a> {
    ctx: &'a Ctx,
    home: Home,
    channel: Channel,
    evaluator: Evaluator,
    line: String,
    args: Chat,
    system: Option<String>,
    declared: Option<Marking>,
    turns: Vec<Turn>,
    left: Left,
}

/// What became of a question.
enum Outcome {
    /// It was answered, wholly or not, and the conversation goes on.
    On,
    /// The conversation is over.
    Over(Fail),
}

pub(super) async fn run(ctx: &Ctx, args: Chat) -> Result<(), Fail> {
    let home = ctx.home()?;
    let evaluator = home.evaluator(args.grant, args.run.as_ref()).await?;
    let channel = home.channel(Use::Call).await?;
    let line = evaluator.dossier().terms().model.line.to_string();
    let system = args.system.clone();
    let mut talk = Talk {
        ctx,
        home,
        channel,
        evaluator,
        line,
        args,
        system,
        declared: None,
        turns: Vec::new(),
        left: Left::default(),
    };
    talk.ctx.out.note("/help shows what there is; Ctrl-C gives up an answer, /quit ends the conversation");
    talk.turn_by_turn(lines(), signal(SignalKind::interrupt())?).await
}

impl Talk<'_> {
    async fn turn_by_turn(
        &mut self,
        mut lines: mpsc::Receiver<Result<String, &'static str>>,
        mut interrupt: Signal,
    ) -> Result<(), Fail> {
        loop {
            self.look().await;
            self.prompt();
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = interrupt.recv() => {
                    self.ctx.out.note("\nnothing is under way; /quit ends the conversation");
                    continue;
                }
            };
            let said = match line {
                None => return Ok(()),
                Some(Err(why)) => {
                    self.ctx.out.note(why);
                    continue;
                }
                Some(Ok(line)) => Said::parse(&line),
            };
            match said {
                Said::Nothing => {}
                Said::Quit => return Ok(()),
                Said::Ask(words) => {
                    if let Outcome::Over(fail) = self.ask(words, &mut interrupt).await {
                        return Err(fail);
                    }
                }
                Said::Help => self.ctx.out.note(HELP),
                Said::Marking(banner) => self.declare(banner.as_deref()),
                Said::System(text) => {
                    let told = if text.is_some() { "told first from here on" } else { "nothing is told first" };
                    self.ctx.out.note(told);
                    self.system = text;
                }
                Said::New => {
                    self.turns.clear();
                    self.ctx.out.note("what was said is not sent along any more");
                }
                Said::Save(file) => match self.save(Path::new(&file)) {
                    Ok(()) => self.ctx.out.note(&format!("saved {} turns in `{file}`", self.turns.len())),
                    Err(why) => self.ctx.out.note(&format!("`{file}`: {why}; nothing was saved")),
                },
                Said::Unknown(line) => {
                    self.ctx.out.note(&format!(
                        "`{}` is no command with what it needs; /help shows them",
                        crate::output::clean(&line)
                    ));
                }
            }
        }
    }

    /// Looks at what is left; what was known stays if the broker cannot be asked.
    async fn look(&mut self) {
        if let Ok(all) = self.home.grants(&self.channel).await {
            let own = all.iter().find(|summary| summary.grant == self.args.grant.as_bytes());
            if let Some(summary) = own {
                self.left = Left::of(summary, &self.evaluator.config().run);
            }
        }
    }

    /// The status line, and the prompt on a line of its own.
    fn prompt(&self) {
        let status = format!("[{} | {}]", self.handled_as(), self.left.words(system::now()));
        let mut out = std::io::stderr().lock();
        // Whoever closed standard error does not want to read it.
        write!(out, "{status}\n> ").and_then(|()| out.flush()).ok();
    }

    /// The marking that what is asked next goes out with.
    fn handled_as(&self) -> String {
        let dossier = self.evaluator.dossier();
        let terms = &dossier.terms().marking;
        let floor = Marking { level: terms.level, caveats: terms.caveats.clone(), rel_to: terms.rel_to.clone() };
        let raised = self.declared.as_ref().and_then(|declared| marking::joined(&floor, declared));
        marking::banner(&raised.unwrap_or(floor))
    }

    fn declare(&mut self, banner: Option<&str>) {
        match banner.map(marking::parse) {
            None => self.declared = None,
            Some(Some(marking)) => self.declared = Some(marking),
            Some(None) => {
                return self.ctx.out.note("a banner line is expected, such as CUI//NOFORN; nothing was changed");
            }
        }
        self.ctx.out.note(&format!("what you ask is declared as {}", self.handled_as()));
    }

    fn body(&self, words: &str, stream: bool) -> Bytes {
        let mut messages: Vec<Value> = Vec::new();
        messages.extend(self.system.iter().map(|system| json!({"role": "system", "content": system})));
        for turn in &self.turns {
            messages.push(json!({"role": "user", "content": turn.asked}));
            messages.push(json!({"role": "assistant", "content": turn.answered}));
        }
        messages.push(json!({"role": "user", "content": words}));
        let mut body = json!({"model": self.line, "messages": messages, "stream": stream});
        if let (Some(tokens), Some(fields)) = (self.args.max_tokens, body.as_object_mut()) {
            fields.insert("max_tokens".to_owned(), tokens.into());
        }
        Bytes::from(body.to_string())
    }

    async fn ask(&mut self, words: String, interrupt: &mut Signal) -> Outcome {
        let (stream, most) = {
            let dossier = self.evaluator.dossier();
            let terms = dossier.terms();
            (terms.features.streaming && !self.args.no_stream, terms.limits.body_bytes_max)
        };
        let body = self.body(&words, stream);
        if u64::try_from(body.len()).is_ok_and(|bytes| bytes > most) {
            let told = "the conversation is longer than the terms let a call be; /new begins again. Nothing was asked";
            self.ctx.out.note(told);
            return Outcome::On;
        }
        let answer = if stream { self.streamed(body, interrupt).await } else { self.whole(body, interrupt).await };
        match answer {
            Ok(Some(answer)) => {
                self.turns.push(Turn { asked: words, ..answer });
                Outcome::On
            }
            Ok(None) => Outcome::On,
            Err(fail) => self.failed(fail),
        }
    }

    /// Says what went wrong; only what nothing can follow ends the conversation.
    fn failed(&self, fail: Fail) -> Outcome {
        let over = fail.is_verification()
            || matches!(fail, Fail::Pipe)
            || fail.refused().is_some_and(|refused| {
                let spent = [Refusal::BudgetSpent, Refusal::LineBudgetSpent].iter().any(|no| no.code() == refused.code);
                spent || refused.class() == RefusalClass::Ended
            });
        if over {
            return Outcome::Over(fail);
        }
        let _ = fail.report(Format::Table);
        self.ctx.out.note("the conversation goes on; what was asked is not part of it");
        Outcome::On
    }

    fn options(&self) -> CallOptions {
        CallOptions { call: None, marking: self.declared.clone() }
    }

    fn keep(&self, body: &Bytes) -> Result<Option<Keep>, Fail> {
        self.args.keep.as_ref().map(|dir| Keep::new(dir, body)).transpose()
    }

    async fn whole(&self, body: Bytes, interrupt: &mut Signal) -> Result<Option<Turn>, Fail> {
        let mut keep = self.keep(&body)?;
        let options = CallOptions { call: Some(system::call_id().map_err(Error::from)?), ..self.options() };
        let call = options.call;
        let answer = tokio::select! {
            answer = self.evaluator.complete_with(Route::Chat, body, options) => answer?,
            _ = interrupt.recv() => {
                self.ctx.out.note("\ngiven up; the call counts as far as it came");
                if let Some(call) = call {
                    keep_cut(self.ctx, &self.home, &self.evaluator, call).await;
                }
                return Ok(None);
            }
        };
        shown(self.ctx, Some(&answer.label));
        if let Some(keep) = &mut keep {
            keep.body(&answer.body);
            keep.write(answer.call.receipt().call())?;
        }
        let words = answered(&answer.body);
        self.ctx.out.words(&format!("{words}\n"))?;
        ended(self.ctx, &answer.call, answer.status)?;
        Ok(Some(turn(words, true, answer.call.receipt().call(), Some(&answer.label))))
    }

    async fn streamed(&self, body: Bytes, interrupt: &mut Signal) -> Result<Option<Turn>, Fail> {
        let mut keep = self.keep(&body)?;
        let mut said = String::new();
        let mut stream = tokio::select! {
            stream = self.evaluator.stream_with(Route::Chat, body, self.options()) => stream?,
            _ = interrupt.recv() => {
                self.ctx.out.note("\ngiven up before it was answered");
                return Ok(None);
            }
        };
        loop {
            let item = tokio::select! {
                item = stream.next() => item,
                _ = interrupt.recv() => {
                    let (call, label) = (stream.call(), stream.label().cloned());
                    // Dropping it cancels the call.
                    drop(stream);
                    self.ctx.out.raw(b"\n")?;
                    self.ctx.out.note("given up; the call counts as far as it came");
                    if let Some(keep) = &keep {
                        keep.write_anyway(self.ctx, call);
                    }
                    keep_cut(self.ctx, &self.home, &self.evaluator, call).await;
                    return Ok((!said.is_empty()).then(|| turn(said, false, call, label.as_ref())));
                }
            };
            match item {
                Ok(Some(StreamItem::Admitted(_))) => shown(self.ctx, stream.label()),
                Ok(Some(StreamItem::Data(data))) => {
                    if let Some(keep) = &mut keep {
                        keep.event(&data);
                    }
                    if let Some(words) = words(&data) {
                        said.push_str(&words);
                        self.ctx.out.words(&words)?;
                    }
                }
                Ok(Some(StreamItem::End { status, call, label, .. })) => {
                    return self.ended(&stream.call(), &call, status, (said, &label), keep.as_ref());
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    if !said.is_empty() {
                        self.ctx.out.raw(b"\n")?;
                    }
                    if let Some(keep) = &keep {
                        keep.write_anyway(self.ctx, stream.call());
                    }
                    keep_cut(self.ctx, &self.home, &self.evaluator, stream.call()).await;
                    return Err(match error.refused() {
                        Some(refused) if !said.is_empty() => Fail::Cut(Box::new(refused.clone())),
                        Some(_) | None => error.into(),
                    });
                }
            }
        }
    }

    fn ended(
        &self,
        id: &CallId,
        call: &VerifiedCall,
        status: u32,
        (said, label): (String, &Label),
        keep: Option<&Keep>,
    ) -> Result<Option<Turn>, Fail> {
        self.ctx.out.raw(b"\n")?;
        if let Some(keep) = keep {
            keep.write(*id)?;
        }
        ended(self.ctx, call, status)?;
        Ok(Some(turn(said, true, *id, Some(label))))
    }

    /// Writes the conversation into a file that is not there yet, for its owner alone.
    fn save(&self, path: &Path) -> std::io::Result<()> {
        let saved = Saved {
            grant: self.args.grant,
            run: &self.evaluator.config().run,
            line: &self.line,
            system: self.system.as_deref(),
            saved: system::now().to_string(),
            turns: &self.turns,
        };
        let text = serde_json::to_string_pretty(&saved).map_err(std::io::Error::other)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{text}").and_then(|()| file.sync_all())
    }
}

fn turn(answered: String, whole: bool, call: CallId, label: Option<&Label>) -> Turn {
    let marking = label.map(|label| marking::banner(&label.marking));
    Turn { asked: String::new(), answered, whole, call: call.to_string(), marking }
}
