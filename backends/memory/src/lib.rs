//! A target in memory, with sessions and a fault script.
