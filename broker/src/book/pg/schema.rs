//! The tables, in SQL that engines which speak PostgreSQL's protocol share.

/// What the tables are; another number is another program's.
pub(super) const FORMAT: i64 = 1;

/// Makes the tables, and fails where there are some.
pub(super) const CREATE: &str = "
CREATE TABLE anteroom_head (
    one smallint PRIMARY KEY CHECK (one = 1),
    format bigint NOT NULL,
    origin text NOT NULL,
    size bigint NOT NULL,
    root bytea NOT NULL
);
CREATE TABLE anteroom_batch (
    first bigint PRIMARY KEY,
    size bigint NOT NULL,
    id bytea NOT NULL UNIQUE,
    root bytea NOT NULL,
    note bytea NOT NULL
);
CREATE TABLE anteroom_record (
    index bigint PRIMARY KEY,
    entry bytea NOT NULL,
    key bytea NOT NULL,
    nonce bytea NOT NULL,
    sealed bytea NOT NULL
);
CREATE TABLE anteroom_key (
    id bytea PRIMARY KEY,
    wrapped bytea NOT NULL
);
CREATE TABLE anteroom_broker (
    name bytea PRIMARY KEY,
    beat bigint NOT NULL,
    folded bigint NOT NULL,
    serves bytea NOT NULL
);
";

pub(super) const EXISTS: &str = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'anteroom_head' AND table_schema = current_schema()";
pub(super) const FIRST_HEAD: &str =
    "INSERT INTO anteroom_head (one, format, origin, size, root) VALUES (1, $1, $2, 0, $3)";
pub(super) const HEAD: &str = "SELECT format, origin, size, root FROM anteroom_head WHERE one = 1";
pub(super) const LOCK_HEAD: &str = "SELECT size, root FROM anteroom_head WHERE one = 1 FOR UPDATE";
pub(super) const MOVE_HEAD: &str = "UPDATE anteroom_head SET size = $1, root = $2 WHERE one = 1 AND size = $3";
pub(super) const ADD_BATCH: &str =
    "INSERT INTO anteroom_batch (first, size, id, root, note) VALUES ($1, $2, $3, $4, $5)";
pub(super) const ADD_RECORDS: &str = "INSERT INTO anteroom_record (index, entry, key, nonce, sealed) \
     SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[])";
pub(super) const FIND_BATCH: &str = "SELECT size FROM anteroom_batch WHERE id = $1";
pub(super) const BATCHES: &str =
    "SELECT first, size, root, note FROM anteroom_batch WHERE first >= $1 ORDER BY first LIMIT $2";
pub(super) const BATCH_OF: &str =
    "SELECT first FROM anteroom_batch WHERE first <= $1 AND size > $1 ORDER BY first DESC LIMIT 1";
pub(super) const RECORDS: &str =
    "SELECT index, entry, key, nonce, sealed FROM anteroom_record WHERE index >= $1 AND index < $2 ORDER BY index";
pub(super) const KEYS: &str = "SELECT id, wrapped FROM anteroom_key";
pub(super) const KEY: &str = "SELECT wrapped FROM anteroom_key WHERE id = $1";
pub(super) const ADD_KEY: &str = "INSERT INTO anteroom_key (id, wrapped) VALUES ($1, $2)";
pub(super) const REMOVE_KEY: &str = "DELETE FROM anteroom_key WHERE id = $1";
pub(super) const JOIN: &str = "INSERT INTO anteroom_broker (name, beat, folded, serves) VALUES ($1, 0, $2, $3)";
pub(super) const BEAT: &str = "UPDATE anteroom_broker SET beat = beat + 1, folded = $2 WHERE name = $1";
pub(super) const SERVES: &str = "UPDATE anteroom_broker SET serves = $2 WHERE name = $1";
pub(super) const BROKERS: &str = "SELECT name, beat, folded, serves FROM anteroom_broker";
pub(super) const LEAVE: &str = "DELETE FROM anteroom_broker WHERE name = $1";
pub(super) const EXPEL: &str = "DELETE FROM anteroom_broker WHERE name = $1 AND beat = $2";
