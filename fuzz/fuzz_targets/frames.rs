#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vipr_fuzz::targets::frames(input));
