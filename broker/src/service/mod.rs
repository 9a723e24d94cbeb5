//! The gRPC services, one thin file each: parse once, ask the journal or the relay, answer.

pub mod acts;
pub mod audience;
pub mod audit;
pub mod caller;
pub mod directory;
pub mod enrolment;
pub mod inference;
pub mod serving;
pub mod shown;
