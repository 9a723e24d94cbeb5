//! Bodies of calls: the de-facto standard JSON of chat, completions, embeddings, responses and messages, read
//! strictly to derive facts.
//!
//! **Invariant:** a [`Body`] has no field that is neither known nor named by the grant, and everything it asks for is in its
//! facts. Errors name fields, never content.

mod blocks;
mod fields;
mod gather;
mod read;

use std::borrow::Cow;

use super::strict_json::{self, JsonFault};

/// What a call is for, by the route it takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Route {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/responses`.
    Responses,
    /// `/v1/messages`.
    Messages,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 5] = [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses, Self::Messages];

    /// The route of this name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.as_str() == name)
    }

    /// Its name in claims and facts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }
}

/// Bounds on a body, from the grant's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyBounds {
    /// Bytes.
    pub bytes_max: u64,
}

/// Tokens that a message costs beside its bytes.
pub const MESSAGE_TOKENS: u64 = 64;
/// Largest number of output tokens that a body may name.
pub const MAX_TOKENS_MAX: u64 = 1 << 32;
/// Most tools in one body.
pub const TOOLS_MAX: usize = 128;

/// Why a body is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes than the grant's bound.
    #[error("the body has {bytes} bytes, the grant's bound is {bytes_max}")]
    TooLarge {
        /// How many it has.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// Bytes that are no UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// Not one JSON value.
    #[error("the body is not one JSON value")]
    NotJson,
    /// An object has a name twice.
    #[error("an object in the body has a name twice")]
    DuplicateKey,
    /// Lists and objects nest too deep.
    #[error("the body nests deeper than {} levels", strict_json::DEPTH_MAX)]
    TooDeep,
    /// Too many JSON values.
    #[error("the body has more than {} JSON values", strict_json::VALUES_MAX)]
    TooManyValues,
    /// A field that the broker does not know and the grant does not name.
    #[error("the field `{0}` is unknown here; terms can name it in `features.named_fields`")]
    UnknownField(String),
    /// A field that a call cannot do without.
    #[error("the field `{0}` is missing")]
    MissingField(&'static str),
    /// A field of another type than the schema gives it.
    #[error("the field `{0}` has another type or value than the schema gives it")]
    WrongType(String),
    /// A number outside its range.
    #[error("the number in the field `{0}` is out of range")]
    NumberOutOfRange(String),
    /// `logit_bias` together with log-probabilities.
    #[error("`logit_bias` does not go together with log-probabilities")]
    BiasWithLogprobs,
}

impl BodyError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "body_too_large",
            Self::NotUtf8 => "body_not_utf8",
            Self::NotJson => "body_not_json",
            Self::DuplicateKey => "body_duplicate_key",
            Self::TooDeep => "body_too_deep",
            Self::TooManyValues => "body_too_many_values",
            Self::UnknownField(_) => "body_unknown_field",
            Self::MissingField(_) => "body_missing_field",
            Self::WrongType(_) => "body_wrong_type",
            Self::NumberOutOfRange(_) => "body_number_out_of_range",
            Self::BiasWithLogprobs => "body_bias_with_logprobs",
        }
    }
}

impl From<JsonFault> for BodyError {
    fn from(fault: JsonFault) -> Self {
        match fault {
            JsonFault::NotUtf8 => Self::NotUtf8,
            JsonFault::NotJson => Self::NotJson,
            JsonFault::DuplicateKey => Self::DuplicateKey,
            JsonFault::TooDeep => Self::TooDeep,
            JsonFault::TooManyValues => Self::TooManyValues,
        }
    }
}

/// Where in a conversation a text stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Channel {
    /// Message text.
    Message,
    /// A model's reasoning.
    Reasoning,
    /// Arguments of a tool call.
    ToolArguments,
    /// What a tool returned.
    ToolResult,
    /// Anything else, names of unknown shape among it.
    Other,
}

/// A text to be scanned.
#[derive(Clone, PartialEq, Eq)]
pub struct Text<'a> {
    /// Where it stands.
    pub channel: Channel,
    /// Whether it goes on where the text before it stopped, as parts of one message do.
    pub continues: bool,
    /// The text.
    pub text: Cow<'a, str>,
}

/// Shows no content.
impl std::fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({} bytes)", self.channel, self.text.len())
    }
}

/// What a body asks for, and its texts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body<'a> {
    /// The route it came by.
    pub route: Route,
    /// Name of the model asked for.
    pub model: String,
    /// Streaming asked.
    pub stream: bool,
    /// Kinds of tools asked for, sorted, each once.
    pub tools: Vec<String>,
    /// Images in the prompt.
    pub images: u32,
    /// Log-probabilities asked per token, counting the chosen one.
    pub logprobs: u32,
    /// Logit bias asked.
    pub logit_bias: bool,
    /// Answers asked for each prompt, at least 1.
    pub n: u32,
    /// Prompts in a batch, at least 1.
    pub prompts: u32,
    /// A seed was given.
    pub seed: bool,
    /// The last message is an assistant's, to be continued.
    pub prefill: bool,
    /// Raw reasoning asked.
    pub reasoning: bool,
    /// `text`, `json_object` or `json_schema`.
    pub response_format: &'static str,
    /// Output tokens named by the body; the largest, if it names several bounds.
    pub max_tokens: Option<u64>,
    /// Messages.
    pub messages: u64,
    /// Whether a prompt consists of token numbers, which no scanner reads.
    pub token_prompt: bool,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// Unknown fields that the grant names and the body has, sorted.
    pub named_fields: Vec<String>,
    /// Every string of the body, names of nested members among them.
    pub texts: Vec<Text<'a>>,
}

/// Reads a body by its route.
///
/// `named_fields` are the unknown fields that the grant lets pass.
///
/// # Errors
/// It is no such body, has a field that is neither known nor named, or breaks a bound.
pub fn parse<'a>(
    route: Route,
    body: &'a [u8],
    bounds: &BodyBounds,
    named_fields: &[String],
) -> Result<Body<'a>, BodyError> {
    let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
    if bytes > bounds.bytes_max {
        return Err(BodyError::TooLarge { bytes, bytes_max: bounds.bytes_max });
    }
    read::read(route, strict_json::parse(body)?, bytes, named_fields)
}

impl Body<'_> {
    /// Tokens that the call can cost at most: the body's bytes, 64 a message, the bound for each image, and what every answer
    /// may have. `None` if that is beyond 64 bits.
    #[must_use]
    pub fn hold_tokens(&self, default_max_tokens: u64, image_tokens: u64) -> Option<u64> {
        let output = match self.route {
            Route::Embeddings => 0,
            Route::Chat | Route::Completions | Route::Responses | Route::Messages => {
                self.max_tokens.unwrap_or(default_max_tokens)
            }
        };
        let messages = self.messages.checked_mul(MESSAGE_TOKENS)?;
        let images = u64::from(self.images).checked_mul(image_tokens)?;
        let answers = u64::from(self.n).checked_mul(u64::from(self.prompts))?;
        let input = self.body_bytes.checked_add(messages)?.checked_add(images)?;
        input.checked_add(answers.checked_mul(output)?)
    }
}

#[cfg(test)]
mod tests;
