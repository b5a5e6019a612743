//! Aligned memory for packed weights and caches, and the work memory that an engine reuses from step to step.
#![expect(unsafe_code, reason = "aligned allocation and memory shared by disjoint parts")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::attention::{DenseTask, Task};
use crate::error::KernelError;

/// Alignment of every buffer: one cache line, one vector.
const ALIGN: usize = 64;

/// Zeroed bytes at a cache line's border. The system hands zero pages out lazily, so untouched parts cost nothing:
/// for that the allocation itself asks for no alignment, since an aligned one would be zeroed by hand.
pub(crate) struct AlignedBytes {
    base: NonNull<u8>,
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its memory like a boxed slice.
unsafe impl Send for AlignedBytes {}
// SAFETY: shared references only read; writers hold exclusive references or write disjoint parts.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    pub(crate) fn zeroed(len: usize) -> Result<Self, KernelError> {
        let refuse = KernelError::OutOfMemory { bytes: len };
        if len == 0 {
            return Ok(Self { base: NonNull::dangling(), at: NonNull::dangling(), len });
        }
        let layout = Self::layout(len).ok_or_else(|| refuse.clone())?;
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(refuse)?;
        let skip = base.as_ptr().addr().next_multiple_of(ALIGN) - base.as_ptr().addr();
        // SAFETY: fewer than `ALIGN` bytes are skipped and the layout has `ALIGN` more than `len`.
        let at = unsafe { base.add(skip) };
        ask_for_huge_pages(at.as_ptr(), len);
        Ok(Self { base, at, len })
    }

    /// Room for `len` bytes wherever they begin.
    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_add(ALIGN)?, 1).ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.at.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.at.as_ptr()
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if self.len != 0
            && let Some(layout) = Self::layout(self.len)
        {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.base.as_ptr(), layout) };
        }
    }
}

/// Size of the pages that walks over large buffers should meet: with small ones, looking up addresses costs more than
/// reading the bytes, above all inside a virtual machine.
const HUGE_PAGE: usize = 2 << 20;

/// Asks for huge pages where whole ones lie inside the buffer. Without them everything works, slower.
fn ask_for_huge_pages(at: *mut u8, len: usize) {
    let first = at.addr().next_multiple_of(HUGE_PAGE) - at.addr();
    let whole = len.saturating_sub(first) / HUGE_PAGE * HUGE_PAGE;
    #[cfg(target_os = "linux")]
    if whole > 0 {
        // SAFETY: the range lies inside memory that we own; the advice does not change its content.
        unsafe { libc::madvise(at.add(first).cast(), whole, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = whole;
}

/// Starts to bring the cache line at an address closer. Any address will do.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of an address that cannot be read does nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// A raw pointer that parallel tasks may share because each touches its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: whoever makes one promises that tasks access disjoint parts.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The caller promises that the tasks that receive it access disjoint parts while it lives.
    pub(crate) fn new(at: *mut T) -> Self {
        Self(at)
    }

    /// The address of an element.
    ///
    /// # Safety
    /// It exists.
    pub(crate) unsafe fn at(self, index: usize) -> *mut T {
        // SAFETY: promised by the caller.
        unsafe { self.0.add(index) }
    }

    /// A part of a slice that no other task touches.
    ///
    /// # Safety
    /// `start..start + len` lies inside the slice, and no other task accesses it.
    pub(crate) unsafe fn part<'a>(self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// What the int8 kernels know of 32 quantized activations.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct GroupInfo {
    /// The value of one step.
    pub(crate) scale: f32,
    /// The sum of all 32 values: what one unit of a weight's minimum adds.
    pub(crate) shift: f32,
    /// Minus eight times the sum of all 32 codes: what weights add whose code of zero is eight.
    pub(crate) eights: i32,
    /// Sum of the first 16 codes.
    pub(crate) half: i32,
}

impl GroupInfo {
    pub(crate) fn new(scale: f32, sums: [i32; 2]) -> Self {
        let sum = sums[0] + sums[1];
        Self { scale, shift: scale * sum as f32, eights: -8 * sum, half: sums[0] }
    }
}

/// Work memory of one engine. It grows to what the largest step needs and is then reused.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) codes: Vec<i8>,
    pub(crate) groups: Vec<GroupInfo>,
    pub(crate) work: Vec<f32>,
    pub(crate) gathered: Vec<f32>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) dense_tasks: Vec<DenseTask>,
}

impl Scratch {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.codes.capacity()
            + self.groups.capacity() * size_of::<GroupInfo>()
            + (self.work.capacity() + self.gathered.capacity()) * size_of::<f32>()
    }
}

/// At least `len` elements of a vector that keeps its memory.
pub(crate) fn grown<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    #[test]
    fn memory_that_nobody_touches_is_not_taken() {
        let before = resident();
        let bytes = AlignedBytes::zeroed(2 << 30).unwrap();
        assert_eq!(bytes.as_ptr().addr() % ALIGN, 0);
        // Other tests of this process take memory, too.
        assert!(resident() < before + (1 << 30));
        // SAFETY: inside the buffer.
        assert_eq!(unsafe { *bytes.as_ptr().add((2 << 30) - 1) }, 0);
    }
}
