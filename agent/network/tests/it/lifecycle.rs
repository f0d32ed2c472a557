//! Restarts, adoption, clean-up.
