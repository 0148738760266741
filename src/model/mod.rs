//! Plain types that the layers hand to one another. No layer of its own: it imports nothing but `error` and `numerics`.
pub mod array;
pub mod batch;
pub mod config;
pub mod context;
pub mod flags;
pub mod names;
pub mod outputs;
pub mod pieces;
pub mod presets;
pub mod primitives;
pub mod ranks;
pub mod report;
