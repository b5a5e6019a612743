#![no_main]

libfuzzer_sys::fuzz_target!(
    init: byzerllm_fuzz::prepare(),
    |bytes: &[u8]| byzerllm_fuzz::run(bytes, byzerllm_providers::fuzzing::vendor_http)
);
