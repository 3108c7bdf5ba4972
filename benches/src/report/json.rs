//! Rows as JSON, one object a line.

use super::row::Row;

/// One row as one line.
pub fn line(row: &Row) -> String {
    let mut line = format!(
        r#"{{"workload":"{}","threads":{},"subject":"{}","ns_median":{},"ns_p99":{},"ratio_to_best_peer":{},"kind":"{}""#,
        row.workload,
        row.threads,
        row.subject,
        number(row.median),
        number(row.p99),
        number(row.ratios.peer),
        row.kind.name(),
    );
    let ratios = [
        ("ratio_to_best_pool", row.ratios.pool),
        ("ratio_to_best_allocator", row.ratios.allocator),
        ("ratio_to_atomic_add", row.ratios.atomic_add),
    ];
    for (name, value) in ratios.iter().chain(&row.extras) {
        line.push_str(&format!(r#","{name}":{}"#, number(*value)));
    }
    line.push('}');
    line
}

/// JSON knows no "not a number".
fn number(value: f64) -> String {
    if value.is_finite() { format!("{:.4}", value) } else { "null".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Kind;

    #[test]
    fn what_is_missing_is_null() {
        let row = Row::new("pair", 1, "tierpool", Kind::Ours, (4.5, 5.0), vec![("spread", 0.25)]);
        assert_eq!(
            line(&row),
            concat!(
                r#"{"workload":"pair","threads":1,"subject":"tierpool","ns_median":4.5000,"ns_p99":5.0000,"#,
                r#""ratio_to_best_peer":null,"kind":"ours","ratio_to_best_pool":null,"#,
                r#""ratio_to_best_allocator":null,"ratio_to_atomic_add":null,"spread":0.2500}"#
            )
        );
    }
}
