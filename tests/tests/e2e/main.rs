//! Stories from end to end, through the programs that people run. One target, so that all of it is linked once.

mod batch;
mod calls;
mod clock;
mod console;
mod counsel;
mod direct;
mod dishonest;
mod disk;
mod doctor;
mod doors;
mod ends;
mod gateway;
mod mirror;
mod retention;
mod rules;
mod search;
mod story;
mod trace;
mod witness;
