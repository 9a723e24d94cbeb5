//! `anteroom batch`: a file of requests, made so many at a time, each once whatever is interrupted.
//!
//! **Invariant:** a request's call identifier is on disk before the call leaves, and one identifier is one call to the broker. So a
//! batch that is started again asks what became of what was under way; it never makes a call a second time that may have been
//! charged.

pub(crate) mod input;
mod journal;
mod show;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::Duration,
};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::names::{CallId, GrantId, RunId};
use anteroom_sdk::{
    error::{Error, RefusalClass, Refused},
    evaluator::{CallOptions, Evaluator},
    system,
};
use clap::Args;
use tokio::{task::JoinSet, time::sleep};

use self::{
    input::Request,
    journal::{Journal, Line, Outcome},
    show::Shown,
};
use crate::{context::Ctx, fail::Fail};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom batch GRANT requests.jsonl                          # answers go to requests.answers.jsonl
  anteroom batch GRANT requests.jsonl --run cyber-1 --at-once 16
  anteroom batch GRANT requests.jsonl --again-lost             # also make those calls anew whose answers were lost

Each line of the file is a request as the OpenAI batch interface has it:
  {\"custom_id\": \"q1\", \"url\": \"/v1/chat/completions\", \"body\": {\"model\": \"reading-room\", \"messages\": [...]}}

Stop it at any moment and start it again: what was answered stays, what was under way is looked up by its call, and nothing is
charged twice. It exits with 0 once every request is settled; how many were refused stands in the sum, and each of them with its
code among the answers.";

/// Most calls at a time.
const AT_ONCE_MAX: usize = 64;
/// How often a call that the broker puts off is tried.
const TRIES: u32 = 40;
/// The wait where the broker names none, and the longest.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Makes the calls of a file.
#[derive(Args)]
pub(crate) struct Batch {
    /// The grant
    grant: GrantId,
    /// Requests, one JSON object a line
    #[arg(value_name = "FILE")]
    requests: PathBuf,
    /// Where answers go; an existing file is gone on with [default: beside FILE, as NAME.answers.jsonl]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The run [default: that of the newest run credential]
    #[arg(long)]
    run: Option<RunId>,
    /// Calls at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=AT_ONCE_MAX as i64))]
    at_once: u16,
    /// Make those calls anew that were charged and whose answers were lost
    #[arg(long)]
    again_lost: bool,
}

/// What came of one request.
enum Made {
    /// Answered, refused for good, or lost; this is its line.
    Settled(Box<Line>),
    /// Nothing more passes: the grant is over, or its budget.
    Over(Box<Refused>),
    /// The batch cannot go on.
    Failed(Fail),
}

pub(crate) async fn run(ctx: &Ctx, args: Batch) -> Result<(), Fail> {
    let requests = input::read(&args.requests)?;
    let out = args.out.clone().unwrap_or_else(|| beside(&args.requests));
    let (mut journal, known) = Journal::open(&out)?;
    let evaluator = ctx.home()?.evaluator(args.grant, args.run.as_ref()).await?;
    let mut shown = Shown::new(requests.len());
    let mut queue = VecDeque::new();
    for request in requests {
        match known.outcome(&request.custom_id) {
            Some(Outcome::Lost) if args.again_lost => queue.push_back((request, None)),
            Some(outcome) => shown.settled(outcome),
            None => {
                let under_way = known.call(&request.custom_id);
                queue.push_back((request, under_way));
            }
        }
    }
    shown.begin(ctx);
    let mut under_way = JoinSet::new();
    // Whatever ends the batch begins no more calls and lets those under way be answered: they are charged.
    let mut end: Option<Fail> = None;
    loop {
        while end.is_none() && under_way.len() < usize::from(args.at_once) {
            let Some((request, made)) = queue.pop_front() else { break };
            let call = match made {
                Some(call) => call,
                None => journal.begin(&request.custom_id, system::call_id().map_err(Error::from)?)?,
            };
            let evaluator = evaluator.clone();
            under_way.spawn(async move { make(&evaluator, request, call, made.is_some()).await });
        }
        let Some(made) = under_way.join_next().await else { break };
        match made.map_err(|_| Fail::from(Error::Interrupted))? {
            Made::Settled(line) => {
                shown.settled(line.outcome());
                journal.settle(&line)?;
            }
            Made::Over(refused) => end = end.or(Some(Error::Refused(refused).into())),
            Made::Failed(fail) => end = end.or(Some(fail)),
        }
        shown.draw();
    }
    shown.end(ctx, &out)?;
    end.map_or(Ok(()), Err)
}

/// Where the answers to a file go.
fn beside(requests: &Path) -> PathBuf {
    requests.with_extension("answers.jsonl")
}

/// Makes one call under its identifier, unless it was made already.
async fn make(evaluator: &Evaluator, request: Request, call: CallId, begun: bool) -> Made {
    if begun {
        match recorded(evaluator, &request, call).await {
            Ok(Some(line)) => return Made::Settled(Box::new(line)),
            // The broker never heard of it.
            Ok(None) => {}
            Err(fail) => return Made::Failed(fail),
        }
    }
    for tried in 0..TRIES {
        let options = CallOptions { call: Some(call), marking: None };
        let error = match evaluator.complete_with(request.route, request.body.clone(), options).await {
            Ok(answer) => return Made::Settled(Box::new(Line::answered(&request, &answer))),
            Err(error) => error,
        };
        let Some(refused) = error.refused().cloned() else {
            return match recorded(evaluator, &request, call).await {
                Ok(Some(line)) => Made::Settled(Box::new(line)),
                Ok(None) | Err(_) => Made::Failed(error.into()),
            };
        };
        let code = Refusal::from_code(&refused.code);
        let over = refused.class() == RefusalClass::Ended
            || matches!(code, Some(Refusal::BudgetSpent | Refusal::LineBudgetSpent));
        if over {
            return Made::Over(Box::new(refused));
        }
        if code == Some(Refusal::BuildSucceeded) {
            // It was made, and cut when another build took the place of the one that answered.
            return Made::Settled(Box::new(Line::lost(&request, call, &refused.code)));
        }
        if code == Some(Refusal::CallIdOld) {
            return Made::Settled(Box::new(Line::lost(&request, call, "begun more than a day ago")));
        }
        let later = matches!(refused.class(), RefusalClass::Later | RefusalClass::Unavailable);
        if !later {
            return Made::Settled(Box::new(Line::refused(&request, call, &refused)));
        }
        // It is on record as refused, so the identifier is free to be asked again: nothing was charged.
        let grown = WAIT.saturating_mul(1 << tried.min(5));
        sleep(refused.retry_after.unwrap_or(grown).min(WAIT_MAX)).await;
    }
    Made::Failed(Fail::Local(format!(
        "`{}` was put off {TRIES} times; start the batch again later, nothing is lost",
        request.custom_id
    )))
}

/// What is on record of a call that was begun; `None` if nothing is.
async fn recorded(evaluator: &Evaluator, request: &Request, call: CallId) -> Result<Option<Line>, Fail> {
    match evaluator.recorded(call).await {
        Ok(recorded) if recorded.state == "refused" => Ok(None),
        Ok(recorded) => Ok(Some(Line::lost(request, call, &recorded.state))),
        Err(error) if error.refused().is_some_and(|refused| refused.code == Refusal::CallUnknown.code()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
