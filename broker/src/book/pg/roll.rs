//! Which brokers share the log: each has a row, which shows that it is there and how far it has folded the log.

use std::time::Duration;

use super::{
    Database,
    link::{Link, failure, within},
    rows::{field, fixed, number, signed},
    schema,
};
use crate::book::wal::WalError;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A broker's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: [u8; 16],
    /// Counts its signs of life.
    pub beat: u64,
    /// Records that it has folded.
    pub folded: u64,
    /// What it has to tell the others: the caller's bytes.
    pub serves: Vec<u8>,
}

/// Reads the rows, on a connection of its own.
#[derive(Debug)]
pub struct Roll {
    database: Database,
    link: Option<Link>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Roll {
    /// The rows of a database; nothing is asked yet.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database, link: None }
    }

    /// Every broker's row.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn call(&mut self) -> Result<Vec<Row>, WalError> {
        self.work(async |link| {
            let brokers = link.prepared(schema::BROKERS).await?;
            let rows = link.client.query(&brokers, &[]).await.map_err(failure)?;
            let read = |row| {
                Ok(Row {
                    name: fixed(row, 0)?,
                    beat: number(field(row, 1)?)?,
                    folded: number(field(row, 2)?)?,
                    serves: field(row, 3)?,
                })
            };
            rows.iter().map(read).collect()
        })
        .await
    }

    /// Puts what `name` has to tell into its row.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn tell(&mut self, name: [u8; 16], serves: &[u8]) -> Result<(), WalError> {
        self.work(async |link| {
            let tell = link.prepared(schema::SERVES).await?;
            link.client.execute(&tell, &[&name.to_vec(), &serves]).await.map_err(failure)
        })
        .await
        .map(drop)
    }

    /// Takes a broker's row away, unless it has shown a sign of life since `beat`. From then on it appends nothing. Whether it was
    /// taken away.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn expel(&mut self, name: [u8; 16], beat: u64) -> Result<bool, WalError> {
        let expelled = self.work(async |link| {
            let expel = link.prepared(schema::EXPEL).await?;
            link.client.execute(&expel, &[&name.to_vec(), &signed(beat)?]).await.map_err(failure)
        });
        Ok(expelled.await? > 0)
    }

    async fn work<T>(&mut self, work: impl AsyncFnOnce(&mut Link) -> Result<T, WalError>) -> Result<T, WalError> {
        let link = self.link.take();
        let (link, answer) = within(ANSWER_MAX, async {
            let mut link = match link {
                Some(link) => link,
                None => Link::open(&self.database).await?,
            };
            let answer = work(&mut link).await?;
            Ok((link, answer))
        })
        .await?;
        self.link = Some(link);
        Ok(answer)
    }
}
