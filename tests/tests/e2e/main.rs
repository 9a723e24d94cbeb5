//! Stories from end to end, through the programs that people run. One target, so that all of it is linked once.

mod batch;
mod calls;
mod chat;
mod clock;
mod connector;
mod counsel;
mod direct;
mod dishonest;
mod disk;
mod doctor;
mod doors;
mod dry_run;
mod ends;
mod fidelity;
mod gateway;
mod lost;
mod messages;
mod mirror;
mod proxy;
mod retention;
mod rules;
mod search;
mod story;
mod succession;
mod trace;
mod witness;
