//! Root at work in a home that belongs to somebody else.
