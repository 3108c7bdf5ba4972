//! Reading traces: every shape that is accepted, every fault that is refused.

use proptest::prelude::*;
use tierpool_cli::trace::{self, Format, Operation, Reading, Trace, TraceError};

fn counts(trace: &Trace) -> (u64, u64, u64) {
    (trace.allocations(), trace.releases(), trace.double_releases())
}

fn parse(text: &str) -> Trace {
    trace::parse(text.as_bytes()).unwrap_or_else(|error| panic!("line {:?}: {error}", error.line()))
}

fn error(text: impl AsRef<[u8]>) -> TraceError {
    trace::parse(text.as_ref()).expect_err("this is no trace")
}

#[test]
fn text_is_read_with_places_used_again() {
    let trace = parse("Alloc(48),\nAlloc(0),\nFree(0),\nAlloc(16),\n");
    let operations: Vec<Operation> = trace.operations().collect();
    assert_eq!(
        operations,
        [
            Operation::Allocate { place: 0, size: 48 },
            Operation::Allocate { place: 1, size: 0 },
            Operation::Release { place: 0 },
            Operation::Allocate { place: 0, size: 16 },
        ]
    );
    assert_eq!(trace.format(), Format::Text);
    assert_eq!(trace.places(), 2);
    assert_eq!((trace.peak().asked, trace.peak().slots, trace.total().asked), (48, 80, 64));
    let leaks: Vec<(u32, u64)> = trace.leaks().iter().map(|leak| (leak.size, leak.line)).collect();
    assert_eq!(leaks, [(0, 2), (16, 4)]);
}

#[test]
fn crlf_spaces_empty_lines_and_a_missing_last_comma_are_accepted() {
    let trace = parse("\r\nAlloc(48),\r\n\r\n  Alloc(7), \r\nFree(1),\r\nFree(0)");
    assert_eq!(counts(&trace), (2, 2, 0));
    let trace = parse("--7-- malloc(10) = 0xA0\r\n--7-- free(0xA0)\r\n");
    assert_eq!(counts(&trace), (1, 1, 0));
}

#[test]
fn the_same_id_released_twice_is_a_double_release_of_a_watched_allocation() {
    let trace = parse("Alloc(1),\nAlloc(2),\nFree(1),\nFree(1),\nAlloc(3),\nFree(1),\nFree(0),\nFree(0),\n");
    assert_eq!(counts(&trace), (3, 2, 3));
    assert_eq!(trace.watched(), 2);
    let operations: Vec<Operation> = trace.operations().collect();
    assert_eq!(
        operations,
        [
            Operation::AllocateWatched { place: 0, size: 1 },
            Operation::AllocateWatched { place: 1, size: 2 },
            Operation::Release { place: 1 },
            Operation::ReleaseAgain { watched: 1 },
            Operation::Allocate { place: 1, size: 3 },
            Operation::ReleaseAgain { watched: 1 },
            Operation::Release { place: 0 },
            Operation::ReleaseAgain { watched: 0 },
        ]
    );
}

/// What valgrind 3.19 wrote for a program that calls everything; only the addresses are shortened.
const VALGRIND: &str = "\
==2899== Memcheck, a memory error detector
==2899== Command: ./a
==2899== 
--2899-- malloc(72704) = 0x4D5C040
--2899-- malloc(10) = 0x4D6DC80
--2899-- realloc(0x4D6DC80,100) = 0x4D6DCD0
--2899-- free(0x4D6DCD0)
--2899-- calloc(3,7) = 0x4D6DD80
--2899-- free(0x4D6DD80)
--2899-- free(0x0)
--2899-- malloc(5) = 0x4D6DE20
--2899-- realloc(0x4D6DE20,0)free(0x4D6DE20)
--2899--  = 0
--2899-- memalign(al 64, size 100) = 0x4D6DEC0
--2899-- free(0x4D6DEC0)
--2899-- _Znwm(4) = 0x4D6DE70
--2899-- _ZdlPvm(0x4D6DE70)
--2899-- _ZnamRKSt9nothrow_t(9) = 0x4D6E070
--2899-- _ZdaPv(0x4D6E070)
--2899-- _ZnwmSt11align_val_t(size 128, al 64) = 0x4D6E280
--2899-- _ZdlPvmSt11align_val_t(0x4D6E280)
--2899-- malloc(20) = 0x4D6E3C0
--2899-- malloc_usable_size(0x4D6E3C0) = 20
--2899-- free(0x4D6E3C0)
--2899-- malloc(4611686018427387904) = 0x0
--2899-- malloc(3) = 0x4D6E420
--2899-- realloc(0x4D6E420,4611686018427387904) = 0x0
--2899-- realloc(0x0,12)malloc(12) = 0x4D6E470
--2899-- malloc(4) = 0x4D6E4C0
--2899-- free(0x4D6E4C0)
--2899-- mallinfo()
--2899-- REDIR: 0x4A1B2C0 (libc.so.6:strlen) redirected to 0x48 (strlen)
--2899-- free(0x4D6E4C0)
==2899== Invalid free() / delete / delete[] / realloc()
==2899==    at 0x484417B: free (in /usr/libexec/valgrind/vgpreload_memcheck-amd64-linux.so)
**2899** a remark of the program itself
";

#[test]
fn every_shape_of_valgrinds_log_is_understood() {
    let trace = parse(VALGRIND);
    assert_eq!(trace.format(), Format::Valgrind);
    assert_eq!(counts(&trace), (13, 10, 1));
    let sizes: Vec<u32> = trace.leaks().iter().map(|leak| leak.size).collect();
    assert_eq!(sizes, [72704, 3, 12]);
    let skipped = trace.skipped();
    assert_eq!((skipped.failed_allocations, skipped.total()), (2, 2));
}

#[test]
fn a_reallocation_that_stays_in_its_place_is_an_allocation_and_a_release() {
    let trace = parse("--7-- malloc(10) = 0xA0\n--7-- realloc(0xA0,12) = 0xA0\n--7-- free(0xA0)\n--7-- free(0xA0)\n");
    assert_eq!(counts(&trace), (2, 2, 1));
    let trace = parse("--7-- malloc(10) = 0xA0\n--7-- realloc(0xA0,12) = 0xB0\n--7-- free(0xA0)\n");
    assert_eq!(counts(&trace), (2, 1, 1), "the old address is released already");
}

#[test]
fn newer_valgrinds_that_hide_an_address_cost_only_what_they_hide() {
    let trace = parse(
        "--7-- posix_memalign(al 64, size 100)\n--7-- malloc(1) = 0xA0\n--7-- free(0xB0)\n\
         --7-- aligned_alloc(al 64, size 128)malloc(16) = 0xC0\n--7-- frobnicate(1)\n",
    );
    assert_eq!(counts(&trace), (2, 0, 0));
    let skipped = trace.skipped();
    assert_eq!((skipped.unanswered_allocations, skipped.unknown_releases, skipped.unknown_calls), (2, 1, 1));
}

#[test]
fn processes_have_their_own_addresses() {
    let trace = parse("--7-- malloc(1) = 0xA0\n--8-- malloc(2) = 0xA0\n--7-- free(0xA0)\n--8-- free(0xA0)\n");
    assert_eq!(counts(&trace), (2, 2, 0));
}

#[test]
fn torture_29_an_empty_file_is_refused() {
    assert!(matches!(error(""), TraceError::Empty));
    assert!(matches!(error("\n\r\n\n"), TraceError::Empty));
    assert!(matches!(error("==7== Command: ./a\n"), TraceError::NoAllocation));
}

#[test]
fn torture_29_a_truncated_file_is_refused_at_its_last_line() {
    for cut in ["Al", "Alloc(", "Alloc(4", "Fre"] {
        let error = error(format!("Alloc(48),\n{cut}"));
        assert!(matches!(error, TraceError::Truncated { line: 2, .. }), "{cut}: {error}");
    }
    for cut in ["-", "--7", "--7-- mal", "--7-- malloc(1", "--7-- malloc(1) = 0x4D6", "--7-- free(0xA0)"] {
        let error = error(format!("--7-- malloc(8) = 0xA0\n{cut}"));
        assert!(matches!(error, TraceError::Truncated { line: 2, .. }), "{cut}: {error}");
    }
}

#[test]
fn torture_29_binary_is_refused() {
    assert!(matches!(error(b"\x7fELF\x02\x01\x01\0\0"), TraceError::Binary { line: 1, byte: 2 }));
    assert!(matches!(error(b"Alloc(1),\nAlloc(\0),\n"), TraceError::Binary { line: 2, byte: 0 }));
    assert!(matches!(error([0xff; 100]), TraceError::Unrecognised { line: 1, .. }));
}

#[test]
fn torture_29_a_line_without_end_is_refused_before_it_is_read() {
    struct Endless(u64);
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'7');
            self.0 += buffer.len() as u64;
            assert!(self.0 < 1 << 20, "a whole megabyte was read");
            Ok(buffer.len())
        }
    }
    let reader = std::io::BufReader::new(Endless(0));
    assert!(matches!(trace::read(reader, Reading::default()), Err(TraceError::LongLine { line: 1 })));
}

#[test]
fn torture_29_the_same_id_allocated_twice_is_refused_with_both_lines() {
    let error = error("--7-- malloc(1) = 0xA0\n\n--7-- malloc(2) = 0xA0\n");
    assert!(matches!(error, TraceError::AllocatedTwice { line: 3, address: 0xA0, earlier: 1 }), "{error}");
}

#[test]
fn torture_29_time_that_goes_backwards_is_refused() {
    assert!(matches!(error("Alloc(1),\nFree(1),\n"), TraceError::NeverAllocated { line: 2, number: 1, made: 1 }));
    assert!(matches!(error("Free(0),\nAlloc(1),\n"), TraceError::NeverAllocated { line: 1, number: 0, made: 0 }));
    let stamped = "--00:00:00:00.412 7-- malloc(1) = 0xA0\n--00:00:00:01.001 7-- free(0xA0)\n";
    assert_eq!(counts(&parse(stamped)), (1, 1, 0));
    let error = error(stamped.replace("01.001", "00.411"));
    assert!(matches!(error, TraceError::Backwards { line: 2, .. }), "{error}");
}

#[test]
fn what_is_no_operation_is_refused_with_its_line() {
    for wrong in [
        "Alloc(-1),",
        "Alloc(),",
        "Alloc(1",
        "Alloc(1),,",
        "Alloc(0x10),",
        "Alloc(99999999999999999999),",
        "free(0),",
        "Alloc(1), Free(0),",
    ] {
        let error = error(format!("Alloc(48),\n{wrong}\nFree(0),\n"));
        assert!(matches!(error, TraceError::Malformed { line: 2, .. }), "{wrong}: {error}");
        assert!(error.to_string().contains("expected `Alloc(bytes),` or `Free(number),`"), "{error}");
    }
    for wrong in [
        "malloc(1) = 0xA0",
        "--7-- malloc(1 = 0xA0",
        "--7-- malloc(1) = 0xA1 x",
        "--7-- malloc() = 0xA0",
        "--7-- malloc(1) = 0xQ",
        "--7-- realloc(0x0) = 0x1",
        "--7-- free()",
    ] {
        let error = error(format!("--7-- malloc(48) = 0xA0\n{wrong}\n--7-- free(0xA0)\n"));
        assert!(matches!(error, TraceError::Malformed { line: 2, .. }), "{wrong}: {error}");
    }
    assert!(matches!(error("TIMESTAMP,ContextTokens\n1,2\n"), TraceError::Unrecognised { line: 1, .. }));
    assert!(matches!(error(format!("Alloc({}),\n", 1_u64 << 32)), TraceError::TooLarge { line: 1, .. }));
}

#[test]
fn reading_stops_where_it_is_told_to() {
    let text = b"Alloc(1),\nAlloc(2),\nFree(0),\nnonsense\n";
    let trace = trace::read(&text[..], Reading { first: Some(3), ..Reading::default() }).unwrap();
    assert_eq!(counts(&trace), (2, 1, 0));
    let error = trace::read(&text[..], Reading { most: 2, ..Reading::default() }).unwrap_err();
    assert!(matches!(error, TraceError::TooLong { line: 3, most: 2 }), "{error}");
}

#[derive(Clone, Debug)]
enum Step {
    Alloc(u32),
    /// Free one of the allocations made so far.
    Free(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![any::<u32>().prop_map(Step::Alloc), any::<prop::sample::Index>().prop_map(Step::Free)];
    prop::collection::vec(step, 1..200).prop_map(|mut steps| {
        steps.insert(0, Step::Alloc(1));
        steps
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(steps in steps()) {
        let (mut text, mut log) = (String::new(), String::new());
        let (mut sizes, mut alive) = (Vec::new(), Vec::new());
        let (mut releases, mut double_releases) = (0, 0);
        for step in &steps {
            match step {
                Step::Alloc(size) => {
                    text += &format!("Alloc({size}),\n");
                    log += &format!("--7-- malloc({size}) = 0x{:X}\n", (sizes.len() + 1) * 16);
                    sizes.push(*size);
                    alive.push(true);
                }
                Step::Free(index) => {
                    let number = index.index(sizes.len());
                    text += &format!("Free({number}),\n");
                    log += &format!("--7-- free(0x{:X})\n", (number + 1) * 16);
                    if std::mem::replace(&mut alive[number], false) { releases += 1 } else { double_releases += 1 }
                }
            }
        }
        for (written, format) in [(&text, Format::Text), (&log, Format::Valgrind)] {
            let trace = parse(written);
            prop_assert_eq!(trace.format(), format);
            prop_assert_eq!(counts(&trace), (sizes.len() as u64, releases, double_releases));
            prop_assert_eq!(trace.len(), steps.len());
            let mut leaked: Vec<u32> = trace.leaks().iter().map(|leak| leak.size).collect();
            let mut expected: Vec<u32> = sizes.iter().zip(&alive).filter(|(_, alive)| **alive).map(|(size, _)| *size).collect();
            leaked.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(leaked, expected);
            // Playing it: no place is taken twice, and none is released empty.
            let mut places = vec![None; trace.places() as usize];
            let mut watched = Vec::new();
            let mut played = Vec::new();
            for operation in trace.operations() {
                match operation {
                    Operation::Allocate { place, size } | Operation::AllocateWatched { place, size } => {
                        prop_assert!(places[place as usize].replace(played.len()).is_none());
                        if matches!(operation, Operation::AllocateWatched { .. }) {
                            watched.push(played.len());
                        }
                        played.push((size, true));
                    }
                    Operation::Release { place } => {
                        let number = places[place as usize].take();
                        prop_assert!(number.is_some());
                        played[number.unwrap()].1 = false;
                    }
                    Operation::ReleaseAgain { watched: number } => {
                        prop_assert!(!played[watched[number as usize]].1, "released again while alive");
                    }
                }
            }
        }
    }

    #[test]
    fn no_damage_to_a_real_log_makes_it_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = VALGRIND.as_bytes().to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let _ = trace::parse(&bytes);
        let _ = trace::parse(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = trace::parse(&bytes);
    }

    #[test]
    fn no_text_of_familiar_pieces_makes_it_panic(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "--7-- ", "--8-- ", "--00:01 7-- ", "==7== ", "malloc(", "realloc(", "calloc(", "free(", "memalign(", "_Znwm(", "_ZdlPv(",
            "reallocarray(", "size ", "al ", ")", " = ", "=", "0xA0", "0xB0", "0", "16", "18446744073709551615", ",", "\n", "\r\n", " ",
            "Alloc(", "Free(", "),", "x(",
        ]), 0..60),
        format in prop::sample::select(vec![None, Some(Format::Text), Some(Format::Valgrind)]),
    ) {
        let _ = trace::read(pieces.concat().as_bytes(), Reading { format, ..Reading::default() });
    }
}
