//! Programs that others wrote, in the chain. One target, so that all of it is linked once.

mod foreign_verify;
mod inspect;
mod lm_eval;
mod model_server;
mod openai;
