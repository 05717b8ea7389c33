//! The main executable as it lies in memory: where it starts, which parts of it never change, and what it is.
//!
//! Two processes that run the same executable have the same image, only at another address. So a place in it is named
//! by its offset from the start.

use std::ops::Range;
use std::sync::OnceLock;

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("multiprocess runs on 64-bit Linux only");

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const PF_W: u32 = 2;
const PF_R: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const DT_NULL: i64 = 0;
const DT_INIT_ARRAY: i64 = 25;
const DT_INIT_ARRAYSZ: i64 = 27;

/// The main executable of this process.
#[derive(Debug)]
pub(crate) struct Image {
    base: usize,
    /// Parts that nobody can write any more: mapped without the right to, or made read-only after relocation.
    constants: Vec<Range<usize>>,
    /// The functions that run before `main`.
    constructors: Option<Range<usize>>,
    build_id: Vec<u8>,
}

/// The main executable of this process.
pub(crate) fn main_image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(Image::read)
}

impl Image {
    /// The offset of `address`, if `len` bytes from there lie in a part that never changes.
    pub(crate) fn offset_of(&self, address: usize, len: usize) -> Option<u64> {
        self.is_constant(address, len)
            .then(|| address.wrapping_sub(self.base) as u64)
    }

    /// The address at `offset`, if `len` bytes from there lie in a part that never changes.
    pub(crate) fn address_of(&self, offset: u64, len: usize) -> Option<usize> {
        let address = self.base.wrapping_add(usize::try_from(offset).ok()?);
        self.is_constant(address, len).then_some(address)
    }

    fn is_constant(&self, address: usize, len: usize) -> bool {
        let Some(end) = address.checked_add(len) else {
            return false;
        };
        self.constants
            .iter()
            .any(|part| part.start <= address && end <= part.end)
    }

    /// Where the last part that never changes ends, as an offset.
    #[cfg(test)]
    pub(crate) fn extent(&self) -> u64 {
        let ends = self.constants.iter().map(|part| part.end);
        ends.max().unwrap_or(self.base).wrapping_sub(self.base) as u64
    }

    /// The addresses of the constructors that stand behind the one at `slot`.
    pub(crate) fn constructors_behind(&self, slot: usize) -> Range<usize> {
        match &self.constructors {
            Some(all) if all.contains(&slot) => slot + size_of::<usize>()..all.end,
            _ => 0..0,
        }
    }

    /// What tells this build from another: the linker's build id, or a digest of the program headers.
    pub(crate) fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    fn read() -> Image {
        let mut image = Image {
            base: 0,
            constants: Vec::new(),
            constructors: None,
            build_id: Vec::new(),
        };
        let target: *mut Image = &mut image;
        // SAFETY: the callback fits the signature, and `target` is valid for as long as the call lasts.
        unsafe { libc::dl_iterate_phdr(Some(on_object), target.cast()) };
        image
    }

    fn take(&mut self, base: usize, headers: &[libc::Elf64_Phdr]) {
        self.base = base;
        for header in headers {
            let start = base.wrapping_add(header.p_vaddr as usize);
            let part = start..start.wrapping_add(header.p_memsz as usize);
            match header.p_type {
                PT_LOAD if header.p_flags & (PF_R | PF_W) == PF_R => self.constants.push(part),
                PT_GNU_RELRO => self.constants.push(part),
                PT_DYNAMIC => self.constructors = constructors(base, &part),
                PT_NOTE if self.build_id.is_empty() => {
                    self.build_id = build_id(bytes_at(&part)).unwrap_or_default();
                }
                _ => {}
            }
        }
        if self.build_id.is_empty() {
            self.build_id = digest(headers);
        }
    }
}

/// Takes the first object, which is the main executable, and stops.
extern "C" fn on_object(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    target: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid description of an object.
    let object = unsafe { &*info };
    // SAFETY: the loader's program headers are that many, and stay mapped as long as the object.
    let headers =
        unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    // SAFETY: `target` is the image that `Image::read` passed, which nobody else uses meanwhile.
    let image = unsafe { &mut *target.cast::<Image>() };
    image.take(object.dlpi_addr as usize, headers);
    1
}

/// The bytes of a part of the executable that the loader has mapped for reading.
fn bytes_at(part: &Range<usize>) -> &'static [u8] {
    // SAFETY: called for the note and dynamic parts of the program headers alone: these are mapped as long as the
    // process lives, and nobody writes them once the loader is done, which is before the first constructor.
    unsafe { std::slice::from_raw_parts(part.start as *const u8, part.end - part.start) }
}

/// Reads where the constructors are from the dynamic section: pairs of a tag and a value.
fn constructors(base: usize, dynamic: &Range<usize>) -> Option<Range<usize>> {
    let (mut start, mut len) = (None, None);
    for entry in bytes_at(dynamic).chunks_exact(16) {
        let (tag, value) = entry.split_at(8);
        let value = usize::from_ne_bytes(value.try_into().ok()?);
        match i64::from_ne_bytes(tag.try_into().ok()?) {
            DT_NULL => break,
            DT_INIT_ARRAY => start = Some(base.wrapping_add(value)),
            DT_INIT_ARRAYSZ => len = Some(value),
            _ => {}
        }
    }
    let start = start?;
    Some(start..start.checked_add(len?)?)
}

/// Finds the build id among notes: each has two lengths and a type, then name and value, padded to 4 bytes.
fn build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    let number = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    loop {
        let name_len = number(notes, 0)? as usize;
        let value_len = number(notes, 4)? as usize;
        let kind = number(notes, 8)?;
        let value_at = 12 + name_len.next_multiple_of(4);
        if kind == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" {
            return notes
                .get(value_at..value_at + value_len)
                .map(<[u8]>::to_vec);
        }
        notes = notes.get(value_at + value_len.next_multiple_of(4)..)?;
    }
}

/// FNV-1a of what the program headers say of the image.
fn digest(headers: &[libc::Elf64_Phdr]) -> Vec<u8> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for header in headers {
        for number in [
            header.p_offset,
            header.p_vaddr,
            header.p_filesz,
            header.p_memsz,
        ] {
            for byte in number.to_ne_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    hash.to_ne_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONSTANT: [u64; 2] = [1, 2];

    #[test]
    fn an_offset_leads_back_to_its_address() {
        let address = CONSTANT.as_ptr() as usize;
        let offset = main_image().offset_of(address, 16).unwrap();
        assert_eq!(main_image().address_of(offset, 16), Some(address));
    }

    #[test]
    fn a_place_on_the_stack_or_heap_has_no_offset() {
        let local = 7u64;
        assert_eq!(main_image().offset_of(&raw const local as usize, 8), None);
        let boxed = Box::new(7u64);
        assert_eq!(main_image().offset_of(&raw const *boxed as usize, 8), None);
        assert_eq!(main_image().address_of(u64::MAX, 8), None);
        assert_eq!(main_image().address_of(u64::MAX / 2, usize::MAX), None);
    }

    #[test]
    fn the_build_has_an_identity() {
        assert!(main_image().build_id().len() >= 8);
    }

    #[test]
    fn notes_that_are_cut_short_have_no_build_id() {
        assert_eq!(build_id(&[]), None);
        assert_eq!(
            build_id(&[
                4, 0, 0, 0, 255, 255, 255, 255, 3, 0, 0, 0, b'G', b'N', b'U', 0
            ]),
            None
        );
    }
}
