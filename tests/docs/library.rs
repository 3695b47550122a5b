//! The lines of Rust in docs/applications.md compile.

use std::time::Duration;

use crate::page::{self, Page};

/// The block of docs/applications.md, around which a reader has a function of the kind.
async fn as_on_the_page() -> Result<Duration, Box<dyn std::error::Error>> {
    let rotator = dbx_rotator::Rotator::builder().build()?;
    let credential = rotator.credential("default").await?;
    Ok(credential.valid_for())
}

#[test]
fn the_lines_of_rust_on_the_pages_are_those_that_compile() {
    let _ = as_on_the_page;
    let here = include_str!("library.rs");
    let blocks: Vec<_> = page::all().iter().flat_map(Page::blocks).collect();
    let rust: Vec<_> = blocks.iter().filter(|block| block.language == "rust").collect();
    assert!(!rust.is_empty());
    for block in rust {
        for line in block.text.lines() {
            let code = line.split("//").next().unwrap().trim();
            assert!(here.contains(code), "{}: `{code}` is not compiled here", block.place);
        }
    }
}
