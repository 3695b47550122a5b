//! What is generated for other programs: names from outside never become settings, lines or cells of their own.
