//! Which dialects a model server speaks, and what each wants beside a body: where its key goes, which version is meant, and what
//! the end of a stream looks like.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::UpstreamError;
use crate::connector::sse::SseEvent;

/// The route of the Anthropic dialect.
const MESSAGES: &str = "/v1/messages";
/// The version of that dialect unless the lab names another.
pub const ANTHROPIC_VERSION: &str = "2023-06-01";
/// Longest version in bytes.
const VERSION_BYTES_MAX: usize = 64;
const KEY: HeaderName = HeaderName::from_static("x-api-key");
const VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// The routes that a model server answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// Those of the OpenAI dialect and `/v1/messages`, as llama.cpp, vLLM and LiteLLM do. Its key goes where either dialect looks
    /// for it.
    #[default]
    Both,
    /// Those of the OpenAI dialect alone; the key is a bearer's.
    OpenAi,
    /// `/v1/messages` alone, as Anthropic's own does; the key goes into `x-api-key`.
    Anthropic,
}

impl Api {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Both, Self::OpenAi, Self::Anthropic];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }

    /// Whether a server that speaks this answers `route`.
    #[must_use]
    pub fn answers(self, route: &str) -> bool {
        match self {
            Self::Both => true,
            Self::OpenAi => route != MESSAGES,
            Self::Anthropic => route == MESSAGES,
        }
    }
}

impl FromStr for Api {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|api| api.as_str() == name);
        known.ok_or_else(|| "`both`, `openai` or `anthropic` is expected".to_owned())
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The secret a model server asks for, as it goes into a header. It is never shown again.
#[derive(Clone)]
pub struct ApiKey {
    bearer: HeaderValue,
    plain: HeaderValue,
}

impl ApiKey {
    /// Takes the secret without its `Bearer` prefix.
    ///
    /// # Errors
    /// [`UpstreamError::ApiKey`] if it is empty or holds characters that a header cannot carry.
    pub fn new(secret: &str) -> Result<Self, UpstreamError> {
        if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UpstreamError::ApiKey);
        }
        let value = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| UpstreamError::ApiKey)?;
            value.set_sensitive(true);
            Ok::<_, UpstreamError>(value)
        };
        Ok(Self { bearer: value(&format!("Bearer {secret}"))?, plain: value(secret)? })
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// A dialect with the version that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Dialect {
    pub(super) api: Api,
    version: HeaderValue,
}

impl Dialect {
    pub(super) fn new(api: Api, version: &str) -> Result<Self, UpstreamError> {
        let plain = !version.is_empty() && version.len() <= VERSION_BYTES_MAX;
        let plain = plain && version.bytes().all(|byte| byte.is_ascii_graphic());
        let value = HeaderValue::from_str(version).ok().filter(|_| plain);
        Ok(Self { api, version: value.ok_or(UpstreamError::Version)? })
    }

    /// Puts key and version where a server looks for them. Nothing of the caller's own request is among them: what the caller
    /// signed is the body.
    pub(super) fn write(&self, route: &str, key: Option<&ApiKey>, headers: &mut HeaderMap) {
        let anthropic = self.api == Api::Anthropic || route == MESSAGES;
        if anthropic {
            headers.insert(VERSION, self.version.clone());
        }
        let Some(key) = key else { return };
        if anthropic {
            headers.insert(KEY, key.plain.clone());
        }
        if self.api != Api::Anthropic {
            headers.insert(AUTHORIZATION, key.bearer.clone());
        }
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self { api: Api::default(), version: HeaderValue::from_static(ANTHROPIC_VERSION) }
    }
}

/// What an event says about the stream that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// More may follow.
    More,
    /// It failed: nothing that makes it whole will follow.
    Failed,
    /// It is whole.
    Whole,
}

/// How the streams of a route end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With `[DONE]`, or where the body ends, since some servers of the OpenAI dialect leave it out.
    Done,
    /// With `message_stop` or an error: a stream that just stops broke off.
    MessageStop,
}

impl Ending {
    pub(super) fn of(route: &str) -> Self {
        if route == MESSAGES { Self::MessageStop } else { Self::Done }
    }

    pub(super) fn read(self, event: &SseEvent) -> Says {
        #[derive(Deserialize)]
        struct Typed<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
        }
        match self {
            Self::Done if event.is_done() => Says::Whole,
            Self::Done => Says::More,
            Self::MessageStop => match serde_json::from_slice::<Typed<'_>>(&event.data) {
                Ok(Typed { kind }) if kind == "message_stop" => Says::Whole,
                Ok(Typed { kind }) if kind == "error" => Says::Failed,
                Ok(_) | Err(_) => Says::More,
            },
        }
    }
}
