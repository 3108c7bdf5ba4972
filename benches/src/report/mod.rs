//! What comes out: rows with their ratios, as JSON or as tables, and the bars.

pub mod bars;
pub mod json;
pub mod row;
pub mod table;
