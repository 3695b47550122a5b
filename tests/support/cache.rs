//! Keeps what is expensive to make between runs, outside of the repository; `tests/run` sets the place.
#![allow(dead_code, unreachable_pub, reason = "test support: each user takes a part of it")]

use std::path::PathBuf;

pub fn directory() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let usual = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    set("DBX_ROTATOR_TEST_CACHE")
        .or_else(|| Some(usual()?.join("dbx-rotator-tests")))
        .unwrap_or_else(|| std::env::temp_dir().join("dbx-rotator-tests"))
}
