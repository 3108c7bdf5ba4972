//! Tables as all commands print them: a bold header, a rule below it, and columns as wide as they need.

use comfy_table::{Attribute, Cell, ContentArrangement, LineStyle, Table, TableStyle};

/// An empty table with that header.
pub fn headed<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::new('─', '─', '─', '─'));
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
    table
}
