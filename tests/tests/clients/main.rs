//! Programs that others wrote, in the chain. One target, so that all of it is linked once.

mod anthropic;
mod bundle_verify;
mod foreign_verify;
mod garak;
mod inspect;
mod langchain;
mod litellm;
mod lm_eval;
mod model_server;
mod openai;
mod openai_node;
mod oscal;
mod promptfoo;
mod pyrit;
mod scripted;
mod setting;
