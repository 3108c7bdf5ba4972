//! Three in the morning: the pool has run out. Who has the slots, since when, and from which line? And who released this
//! handle before me?
//!
//! `cargo run --example who_has_it`

use std::thread;
use std::time::Duration;

use tierpool::{Lease, Tier};

type Connection = String;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let connections: Tier<Connection> =
        Tier::builder("connections").capacity(8).build_with(|| String::from("a connection"))?;

    // Somebody caches what they should give back…
    let worker = connections.clone();
    let cached: Vec<Lease<Connection>> = thread::Builder::new()
        .name("report-writer".into())
        .spawn(move || (0..6).map_while(|_| worker.try_allocate().ok()).collect())?
        .join()
        .expect("the worker does not panic");
    // …and somebody forgets one altogether.
    std::mem::forget(connections.try_allocate()?);
    let _mine = connections.try_allocate()?;
    thread::sleep(Duration::from_millis(50));

    if let Err(refusal) = connections.try_allocate() {
        println!("refused: {refusal}\n");
    }
    println!("who has them:");
    for holder in connections.holders() {
        println!("  {holder}");
    }

    println!("\nby line, what holds most first:\n{}", connections.holders_by_site());

    let handle = cached.into_iter().next().expect("six are cached").detach();
    connections.release(handle)?;
    if let Err(error) = connections.release(handle) {
        println!("\nreleased twice: {error}");
    }
    if let Err(error) = connections.close_and_wait(Duration::from_millis(10)) {
        println!("\nat shutdown: {error}");
    }
    Ok(())
}
