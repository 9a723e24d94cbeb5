//! Random requests and answers of the public OpenAI schema, valid and written oddly: fields in any order, spaces wherever JSON lets
//! them stand, escapes where none are needed, numbers that another writer would shorten, members that nobody knows.
//!
//! Whoever reads such a text and writes it again changes it, so that a test sees it.
//!
//! **Invariant:** everything is a function of the seed, and what is drawn is valid: each request is one that a broker lets through under
//! [`requests::features`], each answer one that its route may have.

pub mod answers;
pub mod json;
pub mod requests;
