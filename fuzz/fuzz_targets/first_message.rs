#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dbx_rotator::fuzzing::first_message(data));
