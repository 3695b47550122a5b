//! What is left of an example, a template or a shell that did not do what was expected of it: no value that anybody means.

const VARIABLE: &str = "is a variable that was never replaced by its value";
const PLACEHOLDER: &str = "holds a placeholder of an example";
const NOTHING: &str = "is what a program writes where it has no value";
const MASKED: &str = "is masked";

/// What programs write for nothing, and people for later, in lower case.
const NO_VALUES: [&str; 15] = [
    "null",
    "(null)",
    "none",
    "nil",
    "undefined",
    "todo",
    "tbd",
    "changeme",
    "change-me",
    "change_me",
    "replaceme",
    "replace-me",
    "replace_me",
    "placeholder",
    "redacted",
];

/// So many of the letter x in a row, and nothing else between two signs, stand for something.
const LEAST_OF_X: usize = 4;

/// What a value looks like that is left over so, without the value itself, which may be a secret; none for any other.
pub(crate) fn looks_left_over(value: &str) -> Option<&'static str> {
    let value = value.trim();
    let within = |open: &str, close: &str| {
        value.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)).is_some_and(|inner| !inner.is_empty())
    };
    let is_variable = value.contains("${")
        || value.contains("$(")
        || value.strip_prefix('$').is_some_and(is_name)
        || within("%", "%")
        || (value.contains("%(") && value.contains(")s"));
    if is_variable {
        return Some(VARIABLE);
    }
    let templates = [("<", ">"), ("{", "}"), ("[", "]"), ("__", "__"), ("@", "@")];
    // An address in brackets is a part of a URL, and no example.
    let is_address = value.contains("::");
    let is_placeholder = !is_address && templates.iter().any(|(open, close)| within(open, close))
        || ["{{", "}}", "#{", "<%"].iter().any(|part| value.contains(part))
        || value.split(['.', '/', '@', ':', ' ', '=', '&']).any(is_of_an_example);
    if is_placeholder {
        return Some(PLACEHOLDER);
    }
    if NO_VALUES.iter().any(|nothing| value.eq_ignore_ascii_case(nothing)) {
        return Some(NOTHING);
    }
    let is_masked = value.chars().count() >= 3 && value.chars().all(|c| matches!(c, '*' | '\u{2022}'));
    is_masked.then_some(MASKED)
}

/// `your-workspace`, `dbc-xxxxxxxx-xxxx`.
fn is_of_an_example(part: &str) -> bool {
    let begins = |with: &str| part.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    let stands_for_something =
        |piece: &str| piece.len() >= LEAST_OF_X && piece.bytes().all(|byte| byte.eq_ignore_ascii_case(&b'x'));
    begins("your-") || begins("your_") || part.split(['-', '_']).any(stands_for_something)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_overs_are_told_from_values() {
        for (looks, values) in [
            (VARIABLE, &["${X}", "$X", "$(cat x)", "%X%", "%(x)s", "a${X}b", "${{ secrets.X }}"][..]),
            (
                PLACEHOLDER,
                &[
                    "<x>",
                    "{x}",
                    "[x]",
                    "{{ x }}",
                    "[[ .X ]]",
                    "#{x}",
                    "<%= x %>",
                    "__X__",
                    "@X@",
                    "YOUR_CLIENT_ID",
                    "your-host",
                    "https://YOUR-WORKSPACE.cloud.databricks.com",
                    "https://dbc-xxxxxxxx-xxxx.cloud.x",
                    "adb-XXXXXXXXXXXX.xx.azuredatabricks.net",
                ],
            ),
            (NOTHING, &["null", "None", "UNDEFINED", "(null)", "nil", "TODO", "changeme", "change-me"]),
            (MASKED, &["***", "********", "\u{2022}\u{2022}\u{2022}\u{2022}"]),
        ] {
            for value in values {
                assert_eq!(looks_left_over(value), Some(looks), "{value}");
            }
        }
        for value in [
            "",
            "x",
            "xxx",
            "*",
            "@abstract",
            "a{b}",
            "a <b>",
            "$",
            "50%",
            "_x_",
            "yours.example",
            "nonesuch",
            "dose0123456789abcdef",
            "xxenon.example",
            "[::1]",
            "ada@example.com",
            "0b1c2d3e-0000-4000-8000-000000000000",
        ] {
            assert_eq!(looks_left_over(value), None, "{value}");
        }
    }
}
