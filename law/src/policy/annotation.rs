//! Annotations on policies, checked when they are loaded (RULES R-13).
