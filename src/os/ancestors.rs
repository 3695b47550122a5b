//! Whether this program started this process, directly or through others. A program in between may drop the variable that
//! would tell (`env -i`, `sudo`), but it cannot change its parents.

/// How many generations are checked. No sensible chain of programs is longer.
#[cfg(target_os = "linux")]
const GENERATIONS: usize = 64;

/// Whether an ancestor runs the same file as this process, and that file is the program itself, not an application with the
/// library.
#[cfg(target_os = "linux")]
pub(crate) fn run_this_program() -> bool {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    let file_of =
        |process: &str| fs::metadata(format!("/proc/{process}/exe")).ok().map(|data| (data.dev(), data.ino()));
    let is_the_program =
        std::env::current_exe().is_ok_and(|path| path.file_name().is_some_and(|name| name == env!("CARGO_PKG_NAME")));
    let Some(own) = file_of("self").filter(|_| is_the_program) else { return false };
    let mut process = "self".to_owned();
    for _ in 0..GENERATIONS {
        let Some(parent) = parent_of(&process) else { return false };
        process = parent.to_string();
        if file_of(&process) == Some(own) {
            return true;
        }
    }
    false
}

/// On other systems only the variable tells.
#[cfg(not(target_os = "linux"))]
pub(crate) fn run_this_program() -> bool {
    false
}

/// None for the first process, and for one that we may not see.
#[cfg(target_os = "linux")]
fn parent_of(process: &str) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|parent| *parent > 1)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn parents_are_found_up_to_the_first_process() {
        assert_eq!(parent_of("self"), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent_of("1"), None);
        assert!(!run_this_program(), "this is a test");
    }
}
