//! How a command ends.

/// A fallible result of the command line.
pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What a command ends with: an error is printed with its kind, and the exit status is 1.
pub(crate) type Outcome = Fallible<()>;
