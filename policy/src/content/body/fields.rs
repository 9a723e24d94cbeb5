//! The public schema of each route, field by field, with what each field means to a grant.
//!
//! **Invariant:** a field that is not in this table is unknown.

use super::Route;

/// What a field means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// It asks for nothing that terms grant one by one; only its type is checked and its strings are scanned.
    Plain(Shape),
    /// Harmless while false; true has to be named by the grant.
    OnlyFalse,
    /// Harmless while it lists nothing but text; anything else has to be named by the grant.
    OnlyText,
    /// Name of the model.
    Model,
    /// Conversation of the chat route.
    Messages,
    /// Prompt of the completions route and input of the embeddings route: text, texts, or token numbers.
    Prompt,
    /// Conversation of the responses route.
    Items,
    /// Conversation of the messages route.
    Turns,
    /// System prompt of the messages route.
    System,
    /// Streamed answers.
    Stream,
    /// Tools.
    Tools,
    /// Tools of the messages route, where a tool without a kind is a function.
    BlockTools,
    /// Tools in their older spelling.
    Functions,
    /// A tool that reaches the internet.
    WebSearch,
    /// Whether log-probabilities are asked (chat).
    Logprobs,
    /// How many log-probabilities are asked.
    TopLogprobs,
    /// Logit bias.
    LogitBias,
    /// Answers.
    N,
    /// A seed.
    Seed,
    /// Form of the answer.
    ResponseFormat,
    /// Form of the answer on the responses route.
    TextFormat,
    /// Bound on output tokens.
    MaxTokens,
    /// How to reason, and whether to show it.
    Reasoning,
    /// Whether to show reasoning.
    IncludeReasoning,
    /// Whether to think on the messages route, and whether to show it.
    Thinking,
    /// Effort, and form of the answer on the messages route.
    OutputConfig,
    /// Additions to an answer on the responses route.
    Include,
}

/// Which types a field may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Bool,
    Number,
    Text,
    List,
    Object,
    TextOrList,
    TextOrObject,
}

/// The meaning of a field on a route; `None` if it is unknown there.
pub(super) fn meaning(route: Route, field: &str) -> Option<Meaning> {
    let common = match field {
        "model" => Some(Meaning::Model),
        "user" | "safety_identifier" if route != Route::Messages => Some(Meaning::Plain(Shape::Text)),
        _ => None,
    };
    common.or_else(|| match route {
        Route::Chat => chat(field).or_else(|| sampled(field)),
        Route::Completions => completions(field).or_else(|| sampled(field)),
        Route::Embeddings => embeddings(field),
        Route::Responses => responses(field),
        Route::Messages => messages(field),
    })
}

/// Chat and completions share these.
fn sampled(field: &str) -> Option<Meaning> {
    Some(match field {
        "frequency_penalty" | "presence_penalty" | "temperature" | "top_p" => Meaning::Plain(Shape::Number),
        "stop" => Meaning::Plain(Shape::TextOrList),
        "stream_options" => Meaning::Plain(Shape::Object),
        "stream" => Meaning::Stream,
        "logit_bias" => Meaning::LogitBias,
        "n" => Meaning::N,
        "seed" => Meaning::Seed,
        "max_tokens" => Meaning::MaxTokens,
        _ => return None,
    })
}

fn chat(field: &str) -> Option<Meaning> {
    Some(match field {
        "messages" => Meaning::Messages,
        "tools" => Meaning::Tools,
        "functions" => Meaning::Functions,
        "web_search_options" => Meaning::WebSearch,
        "tool_choice" | "function_call" => Meaning::Plain(Shape::TextOrObject),
        "parallel_tool_calls" => Meaning::Plain(Shape::Bool),
        "logprobs" => Meaning::Logprobs,
        "top_logprobs" => Meaning::TopLogprobs,
        "max_completion_tokens" => Meaning::MaxTokens,
        "response_format" => Meaning::ResponseFormat,
        "reasoning" => Meaning::Reasoning,
        "include_reasoning" => Meaning::IncludeReasoning,
        "modalities" => Meaning::OnlyText,
        "store" => Meaning::OnlyFalse,
        "metadata" | "prediction" => Meaning::Plain(Shape::Object),
        "reasoning_effort" | "verbosity" | "service_tier" | "prompt_cache_key" | "prompt_cache_retention" => {
            Meaning::Plain(Shape::Text)
        }
        _ => return None,
    })
}

fn completions(field: &str) -> Option<Meaning> {
    Some(match field {
        "prompt" => Meaning::Prompt,
        "suffix" => Meaning::Plain(Shape::Text),
        "echo" => Meaning::Plain(Shape::Bool),
        "best_of" => Meaning::N,
        "logprobs" => Meaning::TopLogprobs,
        _ => return None,
    })
}

fn embeddings(field: &str) -> Option<Meaning> {
    Some(match field {
        "input" => Meaning::Prompt,
        "dimensions" => Meaning::Plain(Shape::Number),
        "encoding_format" => Meaning::Plain(Shape::Text),
        _ => return None,
    })
}

fn responses(field: &str) -> Option<Meaning> {
    Some(match field {
        "input" => Meaning::Items,
        "instructions" | "service_tier" | "truncation" | "prompt_cache_key" | "prompt_cache_retention" => {
            Meaning::Plain(Shape::Text)
        }
        "metadata" | "stream_options" => Meaning::Plain(Shape::Object),
        "temperature" | "top_p" | "max_tool_calls" => Meaning::Plain(Shape::Number),
        "parallel_tool_calls" => Meaning::Plain(Shape::Bool),
        "tool_choice" => Meaning::Plain(Shape::TextOrObject),
        "store" | "background" => Meaning::OnlyFalse,
        "stream" => Meaning::Stream,
        "tools" => Meaning::Tools,
        "top_logprobs" => Meaning::TopLogprobs,
        "max_output_tokens" => Meaning::MaxTokens,
        "text" => Meaning::TextFormat,
        "reasoning" => Meaning::Reasoning,
        "include" => Meaning::Include,
        _ => return None,
    })
}

/// What a server keeps from one call to the next (`container`, `diagnostics`), where it computes (`inference_geo`), on whose
/// account (`workspace_id`, `user_profile_id`), and whatever needs a beta: those are not here, so that a grant has to name them.
fn messages(field: &str) -> Option<Meaning> {
    Some(match field {
        "messages" => Meaning::Turns,
        "system" => Meaning::System,
        "max_tokens" => Meaning::MaxTokens,
        "stream" => Meaning::Stream,
        "tools" => Meaning::BlockTools,
        "thinking" => Meaning::Thinking,
        "output_config" => Meaning::OutputConfig,
        "output_format" => Meaning::ResponseFormat,
        "temperature" | "top_p" | "top_k" => Meaning::Plain(Shape::Number),
        "stop_sequences" => Meaning::Plain(Shape::List),
        "metadata" | "tool_choice" | "cache_control" => Meaning::Plain(Shape::Object),
        "service_tier" | "speed" => Meaning::Plain(Shape::Text),
        _ => return None,
    })
}
