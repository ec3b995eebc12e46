//! Huge pages for large tables.
//!
//! A table of a hundred megabytes that is hit at random misses the translation cache on nearly
//! every hit if its pages are of 4 KiB. Where the system has huge pages for those who ask
//! (`/sys/kernel/mm/transparent_hugepage/enabled`: `madvise`) or for everyone, memory asked for
//! here gets them as it is first touched.

use std::io;

/// Bytes of a huge page. Where they are larger, the kernel rounds for itself.
const HUGE_PAGE: usize = 2 << 20;

/// Asks for huge pages in a range of this process's memory, of which only whole ones matter.
///
/// # Errors
/// Where the kernel has none. Everything works as before then, at its old speed.
pub fn prefer_huge_pages(address: usize, len: usize) -> io::Result<()> {
    let start = address.next_multiple_of(HUGE_PAGE);
    let end = address.saturating_add(len) / HUGE_PAGE * HUGE_PAGE;
    if start >= end {
        return Ok(());
    }
    let start = std::ptr::without_provenance_mut::<libc::c_void>(start);
    // SAFETY: this advice changes neither what the pages hold nor what may be done with them, for
    // whatever range: of one that is not ours the kernel says ENOMEM.
    let result = unsafe { libc::madvise(start, end - start.addr(), libc::MADV_HUGEPAGE) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_asked_about_keeps_what_it_holds() {
        let memory = vec![7u8; 3 * HUGE_PAGE];
        // A kernel without huge pages says so; that is no failure of ours.
        let _ = prefer_huge_pages(memory.as_ptr().addr(), memory.len());
        assert!(memory.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn a_range_without_a_whole_huge_page_is_no_business_of_the_kernel() {
        for (address, len) in
            [(0, 0), (1, HUGE_PAGE), (HUGE_PAGE, HUGE_PAGE - 1), (usize::MAX - 5, 5)]
        {
            if address <= usize::MAX - HUGE_PAGE {
                assert!(prefer_huge_pages(address, len).is_ok(), "{address} {len}");
            }
        }
    }

    #[test]
    fn memory_that_is_not_there_is_refused_by_the_kernel() {
        assert!(prefer_huge_pages(HUGE_PAGE, HUGE_PAGE).is_err());
    }
}
