//! The files beside the password file: which of them may be replaced, and what a process that was killed leaves behind.
