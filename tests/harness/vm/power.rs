//! Power cuts for real.
