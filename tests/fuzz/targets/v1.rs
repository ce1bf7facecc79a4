//! Hands the fuzzer's bytes to [`dkvs_fuzz::v1`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dkvs_fuzz::v1(data));
