//! The rules of the metadata, one sentence a test. Every command of every test also goes through the codecs, and the
//! state it leaves through the invariants and a snapshot.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod clocks;
mod fleet;
mod group_histories;
mod groups;
mod nodes;
mod objects;
mod placement;
mod producers;
mod properties;
mod settings;
mod slots;
mod topics;
mod units;
mod voters;
mod world;
