//! Rules only: no await, no files, no queries, no reading of the clock. Everything here is a function of its
//! arguments, so it is tested with values alone.
//!
//! The words are those of `docs/glossary.md`. Ids are types, never bare strings, in the signatures of the rules.

pub mod audit;
pub mod catalogue;
pub mod event;
pub mod forecast;
pub mod id;
pub mod keys;
pub mod lifecycle;
pub mod limits;
pub mod names;
pub mod playlist;
pub mod preview;
pub mod range;
pub mod retention;
pub mod selection;
pub mod share;
pub mod sizes;
pub mod supervision;
pub(crate) mod text_enum;
pub mod time;
pub mod timeline;
pub mod trim;
pub mod window;
