#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dbx_rotator::fuzzing::kubernetes_answer(data));
