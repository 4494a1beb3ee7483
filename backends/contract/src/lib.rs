//! The contract between the broker and what it mints against.
