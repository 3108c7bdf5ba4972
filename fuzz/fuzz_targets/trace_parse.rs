//! Any bytes as a trace: the parser returns a trace or says why not, and what it returns is consistent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tierpool_cli::trace;

fuzz_target!(|bytes: &[u8]| {
    match trace::parse(bytes) {
        Ok(trace) => {
            assert_eq!(trace.operations().len(), trace.len());
            assert_eq!(trace.operations().count(), trace.len());
            assert!(trace.leaks().len() as u64 <= trace.allocations());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
