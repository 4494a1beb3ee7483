//! What policies are refused, and what the others decide.

mod decide;
mod fixture;
mod load;
mod schema;
