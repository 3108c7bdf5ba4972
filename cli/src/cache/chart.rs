//! Hit rates over capacities, drawn.

use std::path::Path;

use plotters::prelude::*;

use super::curve::Point;
use super::policies::Policy;
use crate::units::count;

const SIZE: (u32, u32) = (820, 480);
/// Where the axes cross, and how long they are.
const ORIGIN: (i32, i32) = (70, 420);
const AXES: (f64, f64) = (560.0, 360.0);

/// Draws a curve for each policy.
///
/// # Errors
/// A sentence, if the file cannot be written.
pub fn chart(path: &Path, title: &str, points: &[Point]) -> Result<(), String> {
    let mut svg = String::new();
    draw(&mut svg, title, points).map_err(|error| error.to_string())?;
    std::fs::write(path, svg).map_err(|error| format!("{}: the chart could not be written: {error}", path.display()))
}

fn draw(svg: &mut String, title: &str, points: &[Point]) -> Result<(), Box<dyn std::error::Error>> {
    let most = points.iter().map(|point| point.capacity).max().unwrap_or(1) as f64;
    let top = points.iter().map(|point| point.hit_rate).fold(0.0, f64::max);
    // The next full tenth.
    let top = ((top * 10.0).ceil() / 10.0).clamp(0.1, 1.0);
    let at = |capacity: f64, rate: f64| {
        let (x, y) = (capacity / most * AXES.0, rate / top * AXES.1);
        (ORIGIN.0 + x as i32, ORIGIN.1 - y as i32)
    };
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (big, small) = (("sans-serif", 18).into_font(), ("sans-serif", 13).into_font());
    let grey = RGBColor(210, 210, 210);
    let failed = |error: DrawingAreaErrorKind<_>| -> Box<dyn std::error::Error> { error.to_string().into() };
    root.fill(&WHITE).map_err(failed)?;
    root.draw(&Text::new(format!("Requests that hit: {title}"), (20, 16), big)).map_err(failed)?;
    for tenth in 0..=(top * 10.0).round() as i32 {
        let (x, y) = at(0.0, f64::from(tenth) / 10.0);
        root.draw(&PathElement::new([(x, y), (x + AXES.0 as i32, y)], grey)).map_err(failed)?;
        root.draw(&Text::new(format!("{} %", tenth * 10), (20, y - 7), small.clone())).map_err(failed)?;
    }
    let mut sizes: Vec<_> = points.iter().map(|point| point.capacity).collect();
    sizes.dedup();
    for capacity in sizes {
        let (x, y) = at(capacity as f64, 0.0);
        root.draw(&PathElement::new([(x, y), (x, y + 5)], BLACK)).map_err(failed)?;
        root.draw(&Text::new(count(capacity as u64), (x - 16, y + 9), small.clone())).map_err(failed)?;
    }
    root.draw(&Text::new("entries", (ORIGIN.0 + AXES.0 as i32 + 20, ORIGIN.1 + 9), small.clone())).map_err(failed)?;
    let colours = [(30, 100, 200), (150, 150, 150), (220, 120, 20), (20, 140, 80), (0, 0, 0)];
    for (row, (policy, (r, g, b))) in Policy::ALL.into_iter().zip(colours).enumerate() {
        let colour = RGBColor(r, g, b);
        let width = if policy == Policy::Tierpool { 3 } else { 1 };
        let curve: Vec<_> = points
            .iter()
            .filter(|point| point.policy == policy.name())
            .map(|point| at(point.capacity as f64, point.hit_rate))
            .collect();
        for place in &curve {
            root.draw(&Circle::new(*place, 3, colour.filled())).map_err(failed)?;
        }
        root.draw(&PathElement::new(curve, colour.stroke_width(width))).map_err(failed)?;
        let (x, y) = (ORIGIN.0 + AXES.0 as i32 + 40, 70 + 24 * row as i32);
        root.draw(&PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(width))).map_err(failed)?;
        root.draw(&Text::new(policy.name(), (x + 32, y - 7), small.clone())).map_err(failed)?;
    }
    root.present().map_err(failed)?;
    Ok(())
}
