//! `anteroom call`: one call with a body of one's own, bytes in and bytes out.

use std::path::PathBuf;

use anteroom_proto::names::{GrantId, RunId};
use anteroom_sdk::{
    evaluator::{Route, StreamItem},
    system,
};
use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::{
    builds::note,
    chat::{ended, shown},
    content::Keep,
    context::Ctx,
    fail::Fail,
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom call GRANT --route chat --body request.json
  anteroom call GRANT --body request.json --keep kept/   # kept/CALL.request and kept/CALL.answer
  jq -n '{model: \"reading-room\", input: \"text\"}' | anteroom call GRANT --route embeddings --body -

A body with \"stream\": true is answered event by event, one a line.";

/// Makes one call.
#[derive(Args)]
pub(crate) struct Call {
    /// The grant
    grant: GrantId,
    /// What the model is asked for
    #[arg(long, default_value = "chat")]
    route: RouteName,
    /// The body, JSON of the route; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// The run [default: that of the newest run credential]
    #[arg(long)]
    run: Option<RunId>,
    /// Keep what was sent and what came, as `CALL.request` and `CALL.answer`, for `anteroom audit prove-content`
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Routes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RouteName {
    /// Chat completions
    Chat,
    /// Plain completions
    Completions,
    /// Embeddings
    Embeddings,
    /// The responses route
    Responses,
    /// The messages route
    Messages,
}

impl RouteName {
    pub(crate) const fn route(self) -> Route {
        match self {
            Self::Chat => Route::Chat,
            Self::Completions => Route::Completions,
            Self::Embeddings => Route::Embeddings,
            Self::Responses => Route::Responses,
            Self::Messages => Route::Messages,
        }
    }
}

pub(crate) async fn run(ctx: &Ctx, args: Call) -> Result<(), Fail> {
    let body = Bytes::from(ctx.read(&args.body)?);
    let evaluator = ctx.home()?.evaluator(args.grant, args.run.as_ref()).await?;
    let mut keep = args.keep.as_ref().map(|dir| Keep::new(dir, &body)).transpose()?;
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if asked.get("stream").and_then(serde_json::Value::as_bool) != Some(true) {
        let answer = evaluator.complete(args.route.route(), body).await?;
        shown(ctx, Some(&answer.label));
        note(ctx, &evaluator.dossier(), system::now());
        if let Some(keep) = &mut keep {
            keep.body(&answer.body);
            keep.write(answer.call.receipt().call())?;
        }
        ctx.out.raw(&answer.body)?;
        return ended(ctx, &answer.call, answer.status);
    }
    let mut stream = evaluator.stream(args.route.route(), body).await?;
    loop {
        let item = match stream.next().await {
            Ok(Some(item)) => item,
            Ok(None) => return Ok(()),
            Err(error) => {
                if let Some(keep) = &keep {
                    keep.write_anyway(ctx, stream.call());
                }
                return Err(error.into());
            }
        };
        match item {
            StreamItem::Admitted(_) => {
                shown(ctx, stream.label());
                note(ctx, &evaluator.dossier(), system::now());
            }
            StreamItem::Data(data) => {
                if let Some(keep) = &mut keep {
                    keep.event(&data);
                }
                ctx.out.raw(&data)?;
                ctx.out.raw(b"\n")?;
            }
            StreamItem::End { status, call, .. } => {
                if let Some(keep) = &keep {
                    keep.write(stream.call())?;
                }
                return ended(ctx, &call, status);
            }
        }
    }
}
