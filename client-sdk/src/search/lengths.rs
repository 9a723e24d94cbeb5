//! How long calls took, from their rows.

use super::{Catalogue, Group, Query, SearchError, query::Filter};
use crate::spread::Spread;

impl Catalogue {
    /// How long the calls that fit took from the record of their admission to the newest record of their end. Calls without one, and
    /// those whose end was never seen, count for nothing.
    ///
    /// # Errors
    /// As [`Catalogue::search`].
    pub fn lengths(&self, query: &Query) -> Result<Spread, SearchError> {
        let mut spread = Spread::default();
        let Some(filter) = Filter::of(query, self)? else { return Ok(spread) };
        let unseen = ["open", "abandoned", "settled"].map(|name| self.names.find(name));
        self.scan(0, false, |_, raw| {
            let ended = raw.group == Group::Call && raw.end_index > 0 && !unseen.contains(&Some(raw.outcome));
            if ended && filter.fits(raw) {
                spread.take(raw.end_at.saturating_sub(raw.at));
            }
            true
        })?;
        Ok(spread)
    }
}
