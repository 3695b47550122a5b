//! The program: all of it is in the library.

fn main() -> std::process::ExitCode {
    dbx_rotator::main()
}
