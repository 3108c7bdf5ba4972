//! A receive thread fills buffers and sends their handles through a channel; a worker attaches and releases them. What goes
//! through the channel is 16 bytes a packet, and no buffer is allocated after the start.
//!
//! `cargo run --release --example packet_path`

use std::sync::mpsc::sync_channel;
use std::thread;

use tierpool::{AllocateError, Handle, Tier};

const PACKETS: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let buffers: Tier<[u8; 2048]> = Tier::builder("packets").capacity(512).build_with(|| [0; 2048])?;
    let (send, receive) = sync_channel::<(Handle, usize)>(256);

    let rx = buffers.clone();
    let receiver = thread::Builder::new().name("rx".into()).spawn(move || {
        let mut local = rx.local(); // a magazine of its own: no thread-local look-up in this loop
        let mut dropped = 0u64;
        for n in 0..PACKETS {
            match local.try_allocate() {
                Ok(mut buffer) => {
                    buffer[..8].copy_from_slice(&n.to_le_bytes());
                    if send.send((buffer.detach(), 8)).is_err() {
                        break;
                    }
                }
                // All 512 are on their way: a packet path drops, and counts.
                Err(AllocateError::Exhausted(_)) => dropped += 1,
                Err(_) => break,
            }
        }
        dropped
    })?;

    let (mut received, mut sum) = (0u64, 0u64);
    for (handle, len) in receive {
        let buffer = buffers.attach(handle)?;
        sum = sum.wrapping_add(buffer[..len].iter().map(|&byte| u64::from(byte)).sum());
        received += 1;
    } // the lease goes back here, through this thread's magazine

    let dropped = receiver.join().expect("the receiver does not panic");
    println!("{received} received, {dropped} dropped for want of a buffer, bytes add up to {sum}");
    println!("{:?}", buffers.snapshot());
    assert_eq!(received + dropped, PACKETS);
    Ok(())
}
