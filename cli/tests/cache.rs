//! `tierpool cache`: what a trace of keys may be, what hits, what is printed. Nothing here depends on how fast the machine is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use tierpool_cli::cache::policies::Policy;
use tierpool_cli::cache::{Capacity, Keys, belady, read};

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cache-{}-{name}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    path
}

fn tierpool(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tierpool")).arg("cache").args(arguments).arg(path).output().unwrap()
}

fn keys(text: &str) -> Keys {
    read(text.as_bytes(), None).unwrap()
}

fn hits(policy: Policy, keys: &Keys, capacity: usize) -> u64 {
    policy.hits(keys, capacity.try_into().unwrap(), &|_| ()).unwrap()
}

/// `17 3 0 0`: blocks 17, 18 and 19.
#[test]
fn runs_of_blocks_are_read_plain_and_compressed() {
    let text = "17 3 0 0\n18 1 0 1\r\n\n19 2 0 2";
    assert_eq!(keys(text).requests(), [0, 1, 2, 1, 2, 3]);
    let compressed = ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    let from_zstd = read(&compressed[..], None).unwrap();
    assert_eq!((from_zstd.requests(), from_zstd.distinct()), (keys(text).requests(), 4));
}

#[test]
fn a_column_of_a_csv_is_read_with_and_without_a_header() {
    for (text, column, requests) in [
        ("a\nb\na\n", None, &[0, 1, 0][..]),
        ("key\na\na\n", None, &[0, 0]),
        ("Id,what\n7,x\n8,x\n7,y", None, &[0, 1, 0]),
        ("7,x\r\n8,x\r\n7,y\r\n", None, &[0, 1, 0]),
        ("only", None, &[0]),
        ("\"a,b\",1\n\"a,b\",2\na,3\n", None, &[0, 0, 1]),
        ("when,who\n1,md\n2,risk\n3,md\n", Some("WHO"), &[0, 1, 0]),
        ("1 2 3 4,x\n1 2 3 4,y\n", None, &[0, 0]),
    ] {
        let keys = read(text.as_bytes(), column).unwrap();
        assert_eq!(keys.requests(), requests, "{text:?}");
    }
}

#[test]
fn the_sizes_of_an_allocation_trace_are_keys() {
    assert_eq!(keys("Alloc(48),\nAlloc(7),\nFree(0),\nAlloc(48),\n").requests(), [0, 1, 0]);
}

/// By hand. In a cache of two, 0 1 2 0 1 2: the least recently used is always the next; who knows that keeps 0 and 1. And the textbooks'
/// pages in three frames, of which nine have to be fetched if each is, and one less if a page may be passed by.
#[test]
fn the_optimum_and_lru_are_what_they_are_by_hand() {
    let round = keys("0 3 0 0\n0 3 0 1\n0 3 0 2\n");
    assert_eq!((hits(Policy::Lru, &round, 2), hits(Policy::Belady, &round, 2)), (0, 4));
    assert_eq!((hits(Policy::Lru, &round, 3), hits(Policy::Belady, &round, 3)), (6, 6));
    let text: String =
        [7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1].map(|key| format!("{key}\n")).concat();
    let pages = keys(&text);
    assert_eq!((hits(Policy::Lru, &pages, 3), hits(Policy::Belady, &pages, 3)), (8, 12));
}

/// Whatever a cache keeps, tried out.
fn best_of_all(requests: &[u32], there: &mut Vec<u32>, capacity: usize) -> u64 {
    let Some((&key, rest)) = requests.split_first() else { return 0 };
    if there.contains(&key) {
        return 1 + best_of_all(rest, there, capacity);
    }
    let mut best = best_of_all(rest, &mut there.clone(), capacity);
    if there.len() < capacity {
        there.push(key);
        return best.max(best_of_all(rest, there, capacity));
    }
    for at in 0..there.len() {
        let mut other = there.clone();
        other[at] = key;
        best = best.max(best_of_all(rest, &mut other, capacity));
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn belady_is_the_best_of_all(requests in vec(0..5u32, 1..9), capacity in 1..4usize) {
        prop_assert_eq!(belady::hits(&requests, 5, capacity, &|_| ()), best_of_all(&requests, &mut Vec::new(), capacity));
    }

    #[test]
    fn no_cache_beats_belady(text in vec(0..40u32, 1..400), capacity in 1..30usize) {
        let keys = keys(&text.iter().map(|key| format!("{key}\n")).collect::<String>());
        let best = hits(Policy::Belady, &keys, capacity);
        for policy in Policy::ALL {
            prop_assert!(hits(policy, &keys, capacity) <= best, "{}", policy.name());
        }
        // All fit.
        let all = keys.requests().len() as u64 - u64::from(keys.distinct());
        for policy in [Policy::Tierpool, Policy::Lru, Policy::Belady] {
            prop_assert_eq!(hits(policy, &keys, 64), all, "{}", policy.name());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200), zstd in any::<bool>()) {
        let head: &[u8] = if zstd { &[0x28, 0xB5, 0x2F, 0xFD] } else { &[] };
        let _ = read(&[head, &bytes].concat()[..], None);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9 ,\"a\n\r]{0,100}") {
        let _ = read(text.as_bytes(), None);
    }
}

#[test]
fn capacities_are_entries_or_percent() {
    let of = |text: &str| text.parse::<Capacity>();
    assert_eq!(of("10%").unwrap().entries(205).get(), 21);
    assert_eq!(of(" 0.1 % ").unwrap().entries(205).get(), 1);
    assert_eq!(of("7").unwrap().entries(205).get(), 7);
    for text in ["", "0", "-1", "0%", "101%", "nan%", "x", "134217729", "1e3"] {
        assert!(of(text).unwrap_err().contains("such as 10%"), "{text}");
    }
}

#[test]
fn bad_input_is_refused_with_its_line() {
    let long = [b'1'; 100_000];
    let good = b"1 1 0 0\n".repeat(200);
    let zstd = ruzstd::encoding::compress_to_vec(&good[..], ruzstd::encoding::CompressionLevel::Fastest);
    for (name, bytes, place, word) in [
        ("empty", &b""[..], "", "no key is in the file"),
        ("blank", b"\n\r\n\n", "", "no key is in the file"),
        ("header", b"key,what\n", "", "no key is in the file"),
        ("binary", b"1 1 0 0\n\x00\x01", ":2", "not text"),
        ("words", b"1 1 0 0\n2 x 0 1\n", ":2", "expected a number of blocks second"),
        ("short", b"1 1 0 0\n2 1\n", ":2", "expected a zero third"),
        ("five", b"1 1 0 0\n2 1 0 1 9\n", ":2", "expected four numbers"),
        ("none", b"1 0 0 0\n", ":1", "at least one block"),
        ("absurd", b"1 1 0 0\r\n1 999999999999 0 1\r\n", ":2", "more than 50000000"),
        ("beyond", b"18446744073709551615 2 0 0\n", ":1", "64 bits"),
        ("field", b"7,1\n8,2\n,3\n", ":3", "expected a field in column 1"),
        ("long", &long, ":1", "longer than"),
        ("cut.zst", &zstd[..zstd.len() - 5], "", "damaged or cut off"),
        ("magic.zst", b"\x28\xB5\x2F\xFD", "", "damaged or cut off"),
    ] {
        let path = file(name, bytes);
        let output = tierpool(&[], &path);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {error}");
        assert!(error.contains(&format!("{}{place}: ", path.display())) && error.contains(word), "{name}: {error}");
        assert!(output.stdout.is_empty());
    }
    let path = file("columns", b"a,b\n1,2\n");
    let error = String::from_utf8(tierpool(&["--column", "c"], &path).stderr).unwrap();
    assert!(error.contains(":1: no column is named \"c\" in the header `a,b`"), "{error}");
    let path = file("sizes", b"Alloc(1),\n");
    let error = String::from_utf8(tierpool(&["--column", "c"], &path).stderr).unwrap();
    assert!(error.contains("it has no column \"c\""), "{error}");
    let error = String::from_utf8(tierpool(&[], Path::new("/nowhere.lis")).stderr).unwrap();
    assert!(error.contains("/nowhere.lis"), "{error}");
}

#[test]
fn it_prints_objects_or_a_table_and_draws() {
    let path = file("small.lis", &b"0 10 0 0\n5 10 0 1\n0 3 0 2\n".repeat(20));
    let svg = path.with_extension("svg");
    let output =
        tierpool(&["--json", "--capacity", "20%,40%", "--capacity", "3", "--chart", svg.to_str().unwrap()], &path);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 10, "20 % of 15 are 3, which is asked once");
    for (at, object) in lines.iter().enumerate() {
        assert_eq!(object["policy"], Policy::ALL[at % 5].name());
        assert_eq!((object["capacity"].as_u64(), object["requests"].as_u64()), (Some([3, 6][at / 5]), Some(460)));
        let (hits, rate) = (object["hits"].as_u64().unwrap(), object["hit_rate"].as_f64().unwrap());
        assert!((hits as f64 / 460.0 - rate).abs() < 1e-9 && rate <= 1.0);
    }
    let drawn = fs::read_to_string(svg).unwrap();
    assert!(drawn.starts_with("<svg") && Policy::ALL.iter().all(|policy| drawn.contains(policy.name())));
    let text = String::from_utf8(tierpool(&[], &path).stdout).unwrap();
    assert!(text.contains("460 requests for 15 different blocks") && text.contains("belady"), "{text}");
}

/// The figures that the crate `quick_cache` reached alone, elsewhere. Hashing is random: a thousandth is given.
#[test]
fn a_recorded_trace_hits_as_often_as_quick_cache_does() {
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces/cache-arc-P3.lis.zst");
    if cfg!(debug_assertions) || !trace.exists() {
        println!("skipped: it needs an optimized build, and {}", trace.display());
        return;
    }
    let keys = read(fs::File::open(trace).unwrap(), None).unwrap();
    for (percent, expected) in [(5.0, 0.149), (10.0, 0.301), (20.0, 0.526), (40.0, 0.689)] {
        let capacity = Capacity::Percent(percent).entries(keys.distinct()).get();
        let rate = |policy| hits(policy, &keys, capacity) as f64 / keys.requests().len() as f64;
        let (ours, theirs) = (rate(Policy::Tierpool), rate(Policy::QuickCache));
        assert!(ours > expected - 0.0015 && ours > theirs - 0.0015, "{percent} %: {ours:.4} beside {theirs:.4}");
    }
}
