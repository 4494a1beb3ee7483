//! The schema that policies are checked against, generated from the catalog.
