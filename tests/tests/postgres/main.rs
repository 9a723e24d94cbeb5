//! Several brokers over one real PostgreSQL: one ledger, whatever is killed, cut or slow.

mod held;
mod killed;
mod moved;
mod pair;
mod replica;
mod shared;
mod tls;
