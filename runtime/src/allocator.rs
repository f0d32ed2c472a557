//! The allocator of a program that is both a daemon and its containers' shim: mimalloc for the daemon, whose calls are
//! hundreds of small allocations across threads; the C library's for the shim, of which there is one per container and
//! for which mimalloc takes four MiB more.
//!
//! Every process begins with the C library's. What that had given out by the time of [`Allocator::serve_daemon`] goes back
//! to it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mimalloc::MiMalloc;

/// Whether this process is a daemon.
static DAEMON: AtomicBool = AtomicBool::new(false);
/// Where the C library's heap began, and its bytes, when the process became one.
static EARLY_START: AtomicUsize = AtomicUsize::new(0);
static EARLY_BYTES: AtomicUsize = AtomicUsize::new(0);

/// To be declared as the global allocator.
#[derive(Debug)]
pub struct Allocator;

impl Allocator {
    /// From now on the process is a daemon. To be called first in `main`: there are no threads yet, and of what was allocated
    /// before nothing of 128 KiB lives on. Without this, nothing changes; nor where the heap cannot be found.
    pub fn serve_daemon(&self) {
        let Some((start, end)) = fs::read_to_string("/proc/self/maps").ok().and_then(|maps| heap(&maps))
        else {
            return;
        };
        EARLY_START.store(start, Ordering::Relaxed);
        EARLY_BYTES.store(end - start, Ordering::Relaxed);
        DAEMON.store(true, Ordering::Relaxed);
    }
}

/// Begin and end of the C library's heap. mimalloc maps its own memory and never has any in there.
fn heap(maps: &str) -> Option<(usize, usize)> {
    let line = maps.lines().find(|line| line.ends_with("[heap]"))?;
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

fn is_daemon() -> bool {
    DAEMON.load(Ordering::Relaxed)
}

/// Whether the block is the C library's.
fn is_systems(block: *mut u8) -> bool {
    !is_daemon()
        || block.addr().wrapping_sub(EARLY_START.load(Ordering::Relaxed))
            < EARLY_BYTES.load(Ordering::Relaxed)
}

// SAFETY: both allocators keep the contract, and each block goes back to the one that it is of. Before the process is a
// daemon all are the C library's. Blocks that it gives out are in its heap, or mapped where they are 128 KiB or more: of
// these there is none when a program begins. Later ones of Rust are mimalloc's, outside of that heap. The switch is made
// while there is one thread, so that every other one sees it.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's, passed on.
        unsafe { if is_daemon() { MiMalloc.alloc(layout) } else { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's, passed on.
        unsafe { if is_daemon() { MiMalloc.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's, passed on to the allocator that the block is of.
        unsafe {
            if is_systems(block) { System.dealloc(block, layout) } else { MiMalloc.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_systems(block) {
            // SAFETY: the caller's, passed on; the block is mimalloc's.
            return unsafe { MiMalloc.realloc(block, layout, size) };
        }
        if !is_daemon() {
            // SAFETY: the caller's, passed on; the block is the C library's.
            return unsafe { System.realloc(block, layout, size) };
        }
        // The C library might move it out of its early heap, where it would not be known again.
        // SAFETY: the caller promises that `size` is valid with this alignment; both blocks have the bytes that are
        // copied, and the old one is the C library's.
        unsafe {
            let moved = MiMalloc.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                System.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_found_among_the_maps() {
        let maps = "55d0c8a00000-55d0c8b00000 r-xp 00000000 fe:00 1 /usr/bin/swarmd\n\
                    55d0c9000000-55d0c9021000 rw-p 00000000 00:00 0                          [heap]\n\
                    7f0000000000-7f0000021000 rw-p 00000000 00:00 0\n";
        assert_eq!(heap(maps), Some((0x55d0_c900_0000, 0x55d0_c902_1000)));
        assert_eq!(heap(""), None);
    }

    /// In a process that has the C library's blocks from before and mimalloc's from after. Of this test program's own
    /// global allocator nothing is touched.
    #[test]
    fn blocks_go_back_to_the_allocator_that_they_are_of() {
        let layout = Layout::from_size_align(100, 8).expect("valid");
        let larger = Layout::from_size_align(300, 8).expect("valid");
        // SAFETY: each block is used within its layout and given back once.
        unsafe {
            let early = Allocator.alloc(layout);
            let grown = Allocator.alloc(layout);
            early.write_bytes(7, 100);
            grown.write_bytes(8, 100);
            // The heap of a test's thread is another one than the program's: this one block stands for it.
            EARLY_START.store(early.addr().min(grown.addr()), Ordering::Relaxed);
            EARLY_BYTES.store(early.addr().abs_diff(grown.addr()) + 100, Ordering::Relaxed);
            DAEMON.store(true, Ordering::Relaxed);
            let late = Allocator.alloc_zeroed(layout);
            assert!(is_systems(early) && is_systems(grown) && !is_systems(late));
            let grown = Allocator.realloc(grown, layout, 300);
            assert!(!is_systems(grown));
            assert_eq!(std::slice::from_raw_parts(grown, 100), [8; 100]);
            assert_eq!(std::slice::from_raw_parts(late, 100), [0; 100]);
            Allocator.dealloc(early, layout);
            Allocator.dealloc(grown, larger);
            Allocator.dealloc(late, layout);
            DAEMON.store(false, Ordering::Relaxed);
        }
    }
}
