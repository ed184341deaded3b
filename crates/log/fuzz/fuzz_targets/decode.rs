//! Every decoder of the log, by the first byte of the input; see `millpond_log::fuzz`.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|input: &[u8]| {
    millpond_log::fuzz::check(input);
});

// Without right checksums no mutation comes far.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 3 > 0 {
        let mut mended = data[..size].to_vec();
        millpond_log::fuzz::mend(&mut mended);
        // A manifest may have become longer than there is room.
        if mended.len() <= max_size {
            data[..mended.len()].copy_from_slice(&mended);
            return mended.len();
        }
    }
    size
});
