//! Numbers as a person reads them, and sizes as a person writes them.

/// Bytes with a binary unit: `48 B`, `1.5 KiB`, `2 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{} {unit}", short(value))
}

/// Nanoseconds with the unit that suits them: `14.2 ns`, `3.1 µs`, `5 ms`.
pub fn nanos(nanos: f64) -> String {
    match nanos {
        n if n < 999.95 => format!("{} ns", short(n)),
        n if n < 999_950.0 => format!("{} µs", short(n / 1e3)),
        n if n < 999_950_000.0 => format!("{} ms", short(n / 1e6)),
        n => format!("{} s", short(n / 1e9)),
    }
}

/// A count with commas: `11,431`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A share in percent, with one decimal, never rounded up to 100 % or down to 0 %.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match (percent, format!("{percent:.1}")) {
        (p, text) if p < 100.0 && text == "100.0" => "99.9 %".to_owned(),
        (p, text) if p > 0.0 && text == "0.0" => "0.1 %".to_owned(),
        (_, text) => format!("{} %", text.strip_suffix(".0").unwrap_or(&text)),
    }
}

/// `count` and its noun: `1 leak`, `2 leaks`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Reads a size such as `4096`, `64K`, `512MiB` or `2G`.
///
/// # Errors
/// Returns a sentence that says what was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is no size; expected a number of bytes such as 4096, 512MiB or 2G");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| expected())?;
    let shift = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(expected()),
    };
    number.checked_mul(1 << shift).ok_or_else(expected)
}

/// One decimal below 100, none above, and no `.0`.
fn short(value: f64) -> String {
    if value >= 99.95 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 48, 1024, 1536, 1 << 20, (1 << 20) - 1, 9 << 17, 2 << 30].map(bytes),
            ["0 B", "48 B", "1 KiB", "1.5 KiB", "1 MiB", "1 MiB", "1.1 MiB", "2 GiB"]
        );
        assert_eq!(
            [4.61, 10.0, 120.4, 2_840.0, 5e6, 2.5e9].map(nanos),
            ["4.6 ns", "10 ns", "120 ns", "2.8 µs", "5 ms", "2.5 s"]
        );
        assert_eq!([0, 999, 1000, 11_431, 1_000_000].map(count), ["0", "999", "1,000", "11,431", "1,000,000"]);
        assert_eq!([0.0, 0.00001, 0.855, 0.99999, 1.0].map(percent), ["0 %", "0.1 %", "85.5 %", "99.9 %", "100 %"]);
    }

    #[test]
    fn sizes_are_read_back() {
        assert_eq!(
            ["7", "64K", "512MiB", "2G", "1 tib"].map(|text| parse_bytes(text).unwrap()),
            [7, 64 << 10, 512 << 20, 2 << 30, 1 << 40]
        );
        for wrong in ["", "G", "-1", "1.5G", "9 parsecs", "99999999999T"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
