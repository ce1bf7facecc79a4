//! Hands the fuzzer's bytes to [`dkvs_fuzz::slot`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dkvs_fuzz::slot(data));
