//! What is said about notices, checked as a whole.

use std::path::PathBuf;

use anteroom_proto::statement::contacts::MailAddress;

use super::{ConfigError, bad};
use crate::{
    notices::{NoticeSettings, RelayAddress},
    relay::networks::Networks,
};

pub(super) fn check(
    relay: Option<String>,
    password: Option<PathBuf>,
    from: Option<String>,
    allow: Networks,
) -> Result<NoticeSettings, ConfigError> {
    // Not repeated if it is wrong: a password may stand in it.
    let wrong = |error| bad("notices_smtp", "given", error);
    let relay = relay.map(|text| text.parse::<RelayAddress>().map_err(wrong)).transpose()?;
    let from = match from {
        Some(text) => Some(text.parse::<MailAddress>().map_err(|error| bad("notices_from", &text, error))?),
        None => None,
    };
    if let Some(relay) = &relay {
        if from.is_none() {
            return Err(ConfigError::Missing("notices_from"));
        }
        if relay.user.is_some() != password.is_some() {
            let rule = "a relay with a user takes the file `notices_smtp_password`, one without takes none";
            return Err(bad("notices_smtp", relay, rule));
        }
    }
    Ok(NoticeSettings { relay, from, password, allow })
}
