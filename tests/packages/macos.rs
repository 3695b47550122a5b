//! The code for macOS, on a machine that is not a Mac: compiled with warnings denied, including its tests, and linked into what a
//! Mac would load. `tests/macos/cross` does it; docs/macos.md says what this does not prove.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::path::PathBuf;
use std::process::Command;

use object::macho::{self, MachHeader64};
use object::read::macho::{FatArch, LoadCommandVariant, MachHeader, MachOFatFile32};
use object::{Architecture, Endianness};

/// The exit code of `tests/macos/cross` if something that it needs is not available.
const CANNOT_BE_HAD: i32 = 77;

/// Runs `tests/macos/cross`; returns the last line that it printed, or none if the test is skipped.
fn cross(test: &str, what: &str) -> Option<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/macos/cross");
    let mut command = Command::new(script);
    // Variables that the test runner sets for its children do not concern that build.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_BIN_") || name == "CARGO_TARGET_DIR" {
            command.env_remove(name);
        }
    }
    let output = command.arg(what).output().expect("run tests/macos/cross");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(CANNOT_BE_HAD) {
        crate::support::skip(test, err.lines().last().unwrap_or("something cannot be had"));
        return None;
    }
    assert!(output.status.success(), "cross {what}: {}\n{out}{err}", output.status);
    Some(out.lines().last().unwrap_or_default().to_owned())
}

/// What a Mac's loader reads about one architecture.
#[derive(Debug)]
struct Slice {
    architecture: Architecture,
    is_for_macos: bool,
    /// The oldest version that can run it, as major and minor.
    minimum: (u16, u8),
    libraries: Vec<String>,
    is_signed: bool,
}

impl Slice {
    fn of(data: &[u8], architecture: Architecture) -> Self {
        let header = MachHeader64::<Endianness>::parse(data, 0).unwrap();
        let endian = header.endian().unwrap();
        assert_eq!(header.filetype(endian), macho::MH_EXECUTE);
        let mut slice =
            Slice { architecture, is_for_macos: false, minimum: (0, 0), libraries: Vec::new(), is_signed: false };
        let mut commands = header.load_commands(endian, data, 0).unwrap();
        while let Some(command) = commands.next().unwrap() {
            match command.variant().unwrap() {
                LoadCommandVariant::Dylib(dylib) => {
                    let name = command.string(endian, dylib.dylib.name).unwrap();
                    slice.libraries.push(String::from_utf8_lossy(name).into_owned());
                }
                LoadCommandVariant::BuildVersion(version, _) => {
                    let minimum = version.minos.get(endian);
                    slice.is_for_macos = version.platform.get(endian) == macho::PLATFORM_MACOS;
                    slice.minimum = (minimum.major(), minimum.minor());
                }
                LoadCommandVariant::LinkeditData(..) => slice.is_signed |= command.cmd() == macho::LC_CODE_SIGNATURE,
                _ => {}
            }
        }
        slice.libraries.sort();
        slice
    }
}

#[test]
fn clippy_finds_nothing_in_the_program_and_its_tests_for_macos() {
    cross("clippy_finds_nothing_in_the_program_and_its_tests_for_macos", "clippy");
}

#[test]
fn the_unit_tests_are_linked_for_macos() {
    cross("the_unit_tests_are_linked_for_macos", "tests");
}

#[test]
fn a_program_for_both_processors_is_linked_for_macos_with_nothing_that_a_mac_lacks() {
    let test = "a_program_for_both_processors_is_linked_for_macos_with_nothing_that_a_mac_lacks";
    let Some(program) = cross(test, "link").map(PathBuf::from) else { return };
    let data = std::fs::read(&program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let both = MachOFatFile32::parse(&*data).expect("a universal binary");
    let slices: Vec<Slice> =
        both.arches().iter().map(|arch| Slice::of(arch.data(&*data).unwrap(), arch.architecture())).collect();
    let mut processors: Vec<Architecture> = slices.iter().map(|slice| slice.architecture).collect();
    processors.sort_by_key(|processor| format!("{processor:?}"));
    assert_eq!(processors, [Architecture::Aarch64, Architecture::X86_64]);
    for slice in &slices {
        assert!(slice.is_for_macos && slice.minimum == (11, 0), "{slice:?}");
        // Nothing from Homebrew or from this machine.
        let expected = [
            "/System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation",
            "/System/Library/Frameworks/Security.framework/Versions/A/Security",
            "/System/Library/Frameworks/SystemConfiguration.framework/Versions/A/SystemConfiguration",
            "/usr/lib/libSystem.B.dylib",
            // Linked by the libiconv stub of cargo-zigbuild.
            "/usr/lib/libcharset.1.dylib",
            "/usr/lib/libiconv.2.dylib",
        ];
        assert_eq!(slice.libraries, expected, "{:?}", slice.architecture);
        // An Apple processor does not run it without any signature.
        assert!(slice.is_signed || slice.architecture != Architecture::Aarch64, "{slice:?}");
    }
}
