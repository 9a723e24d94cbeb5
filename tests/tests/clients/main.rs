//! Programs that others wrote, in the chain. One target, so that all of it is linked once.

mod bundle_verify;
mod foreign_verify;
mod garak;
mod inspect;
mod langchain;
mod lm_eval;
mod model_server;
mod openai;
mod openai_node;
mod promptfoo;
mod setting;
