//! A secret goes to the origin that it belongs to, and to no other.
