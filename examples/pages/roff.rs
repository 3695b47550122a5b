//! Text for roff, in which some characters mean something.

/// A text that means nothing to roff.
pub(crate) fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('"', "\\(dq");
    // A line must not begin like a request.
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

pub(crate) fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", plain(text))
}

pub(crate) fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", plain(text))
}

/// A list of things in bold with what they are.
pub(crate) fn list<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    entries.into_iter().map(|(name, text)| format!(".TP\n{}\n{}\n", bold(name), plain(text))).collect()
}

/// A command line as it is typed.
pub(crate) fn typed(line: &str) -> String {
    format!(".PP\n.nf\n.RS 4\n{}\n.RE\n.fi\n", plain(line))
}
