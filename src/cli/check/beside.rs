//! Whether what is written beside the password file is as its readers need it, and whether those who must be told were.

use crate::cli::finding::{Finding, Id, Level};
use crate::failure::Failure;
use crate::model::Listing;
use crate::rotation::Snapshot;

/// All of it.
pub(super) struct Beside {
    /// What keeps people from `psql service=NAME`, a sentence for each.
    pub(super) service_file: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

impl Beside {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let (service_file, of_it) = service_file(snapshot);
        let findings = of_each(snapshot).into_iter().chain(of_it).collect();
        Beside { service_file, findings }
    }

    pub(super) fn is_well(&self) -> bool {
        self.findings.iter().all(|finding| finding.level == Level::Ok)
    }
}

/// One for each file, and one for each program that was not told.
fn of_each(snapshot: &Snapshot) -> Vec<Finding> {
    let all = snapshot.connections().iter().enumerate();
    all.flat_map(|(index, connection)| {
        let name = connection.name();
        let file = move |found: Result<String, Failure>| match found {
            Ok(file) => Finding::ok(Id::File, format!("{name}: {file} holds the live password")),
            Err(failure) => Finding::failed(Id::File, format!("{name}: {failure}")).hint_of(&failure),
        };
        snapshot.files_beside(index).into_iter().map(file).chain(untold(snapshot, index))
    })
    .collect()
}

/// The program that `on_rotate` names has failed: whom it tells may go on with the password before, which dies soon.
fn untold(snapshot: &Snapshot, index: usize) -> Option<Finding> {
    let failure = snapshot.hook_error(index)?;
    let message = format!("{}: on_rotate failed at the last rotation: {failure}", snapshot.connections()[index].name());
    let again = "then `dbx-rotator rotate` runs it again";
    let hint = failure.hint.as_ref().map_or_else(|| format!("mend it; {again}"), |hint| format!("{hint}; {again}"));
    Some(Finding::warning(Id::OnRotate, message).hint(hint))
}

/// What keeps people from `psql service=NAME`, a sentence for each, and the findings.
fn service_file(snapshot: &Snapshot) -> (Vec<String>, Vec<Finding>) {
    let faults = snapshot.service_file_faults(|listing| listing != Listing::No);
    if faults.is_empty() {
        return (Vec::new(), Vec::new());
    }
    // A section that nobody asked for may be missing.
    let is_asked_for = !snapshot.service_file_faults(|listing| listing == Listing::Asked).is_empty();
    let level = if is_asked_for { Level::Failed } else { Level::Warning };
    let finding =
        |failure: &Failure| Finding::new(Id::ServiceFile, level, format!("service file: {failure}")).hint_of(failure);
    (faults.iter().map(|failure| failure.message.clone()).collect(), faults.iter().map(finding).collect())
}
