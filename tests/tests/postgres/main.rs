//! Several brokers over one real PostgreSQL: one ledger, whatever is killed, cut or slow.

mod held;
mod killed;
mod moved;
mod replica;
mod shared;
