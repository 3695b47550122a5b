//! No link leads nowhere, and every page can be found from the README.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::page::{self, Page, repository};

/// The page and the heading that a link of this page leads to; none where it leads out of the repository.
fn target(page: &Page, link: &str) -> Option<(String, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor.to_owned())));
    let whole = match path {
        "" => PathBuf::from(&page.path),
        path => Path::new(&page.path).parent().unwrap().join(path),
    };
    let mut inside = PathBuf::new();
    for part in whole.components() {
        match part {
            Component::ParentDir => assert!(inside.pop(), "{}: {link} leads out of the repository", page.path),
            part => inside.push(part),
        }
    }
    Some((inside.to_str().unwrap().to_owned(), anchor))
}

#[test]
fn no_link_leads_nowhere() {
    let mut seen = 0;
    for page in page::all().into_iter().chain(["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(Page::read)) {
        for link in page.links() {
            let Some((path, anchor)) = target(&page, &link) else { continue };
            seen += 1;
            assert!(repository().join(&path).exists(), "{}: {link} is not there", page.path);
            let Some(anchor) = anchor else { continue };
            assert!(Page::read(&path).anchors().contains(&anchor), "{}: {link} names no heading of {path}", page.path);
        }
    }
    assert!(seen > 50, "only {seen} links were found");
}

#[test]
fn the_readme_has_the_version_and_one_place_that_is_not_there_yet() {
    let readme = Page::read("README.md");
    assert!(readme.text.contains(concat!("/dbx-rotator-", env!("CARGO_PKG_VERSION"), "-linux-")));
    let places: BTreeSet<&str> =
        readme.text.split("https://").skip(1).filter_map(|rest| rest.split('/').next()).collect();
    assert_eq!(places, BTreeSet::from(["RELEASES"]));
}

#[test]
fn every_page_is_found_from_the_readme() {
    let mut found = BTreeSet::from(["README.md".to_owned()]);
    let mut next = vec!["README.md".to_owned()];
    while let Some(path) = next.pop() {
        let page = Page::read(&path);
        let links = page.links();
        let pages = links.iter().filter_map(|link| target(&page, link)).map(|(path, _)| path);
        let there = pages.filter(|path| path.ends_with(".md") && repository().join(path).exists());
        next.extend(there.filter(|path| found.insert(path.clone())));
    }
    for page in page::all() {
        assert!(found.contains(&page.path), "no link leads to {}", page.path);
    }
}
