//! Hands the fuzzer's bytes to [`dkvs_fuzz::v2`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dkvs_fuzz::v2(data));
