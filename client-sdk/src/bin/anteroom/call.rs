//! `anteroom call`: one call with a body of one's own, bytes in and bytes out.

use std::path::PathBuf;

use anteroom_proto::names::{GrantId, RunId};
use anteroom_sdk::evaluator::{Route, StreamItem};
use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::{
    chat::{ended, shown},
    context::Ctx,
    fail::Fail,
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom call GRANT --route chat --body request.json
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
}

impl RouteName {
    const fn route(self) -> Route {
        match self {
            Self::Chat => Route::Chat,
            Self::Completions => Route::Completions,
            Self::Embeddings => Route::Embeddings,
            Self::Responses => Route::Responses,
        }
    }
}

pub(crate) async fn run(ctx: &Ctx, args: Call) -> Result<(), Fail> {
    let body = Bytes::from(ctx.read(&args.body)?);
    let evaluator = ctx.home()?.evaluator(args.grant, args.run.as_ref()).await?;
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if asked.get("stream").and_then(serde_json::Value::as_bool) != Some(true) {
        let answer = evaluator.complete(args.route.route(), body).await?;
        shown(ctx, Some(&answer.label));
        ctx.out.raw(&answer.body)?;
        return ended(ctx, &answer.call, answer.status);
    }
    let mut stream = evaluator.stream(args.route.route(), body).await?;
    while let Some(item) = stream.next().await? {
        match item {
            StreamItem::Admitted(_) => shown(ctx, stream.label()),
            StreamItem::Data(data) => {
                ctx.out.raw(&data)?;
                ctx.out.raw(b"\n")?;
            }
            StreamItem::End { status, call, .. } => return ended(ctx, &call, status),
        }
    }
    Ok(())
}
