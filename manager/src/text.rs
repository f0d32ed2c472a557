//! Errors as one line for operators.

use std::error::Error;
use std::fmt::Write as _;

/// An error and its causes, outermost first: `cannot do this: because of that`.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
