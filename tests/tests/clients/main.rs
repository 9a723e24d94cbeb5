//! Programs that others wrote, in the chain. One target, so that all of it is linked once.

mod foreign_verify;
mod model_server;
