//! `SharedMemory`: bytes under a name, for programs in other languages.

use crate::error::{Error, Result};
use crate::sys::file::identity;
use crate::sys::shared::SharedFd;
use crate::sys::{identity as process, limits, named};
use crate::wire::handles::Descriptor;
use bytemuck::Pod;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The longest name of a file.
const NAME_MAX: usize = 255;

/// Holds a block of bytes that has a name, so that programs in other languages find it: POSIX shared memory, which Python
/// calls `multiprocessing.shared_memory.SharedMemory`, and which Linux shows in `/dev/shm`.
///
/// Where only processes of this program take part, [`SharedSlice`](crate::SharedSlice) and others do better: they have no
/// name that can be taken or left behind, and are read in place. This is read and written by copies. Two that overlap in
/// time may mix: whoever needs order between processes needs a lock beside it.
///
/// # Who takes the name away
///
/// Whoever created the block: the name goes when the last handle in the creating process is dropped, or by
/// [`unlink`](SharedMemory::unlink). [`keep`](SharedMemory::keep) lets it stay. Handles that were opened by name, or that
/// came from another process, leave the name alone. The memory itself goes when the name is gone and nobody has the block
/// open any more, so that those who have it open go on. A process that is killed leaves its names behind.
///
/// (Python before 3.13 takes away the name of any block that it has opened when it ends, unless it is told not to:
/// `multiprocessing.resource_tracker.unregister`, or `track=False` since.)
///
/// # Examples
///
/// ```
/// use multiprocess::SharedMemory;
///
/// let name = format!("doc-{}", std::process::id());
/// let block = SharedMemory::create(&name, 1024)?;
/// block.write(8, &[1.5_f64, 2.5])?;
///
/// let theirs = SharedMemory::open(&name)?;
/// let mut numbers = [0.0; 2];
/// theirs.read(8, &mut numbers)?;
/// assert_eq!(numbers, [1.5, 2.5]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedMemory {
    block: Arc<Block>,
}

struct Block {
    name: String,
    file: Arc<SharedFd>,
    len: usize,
    /// The process that takes the name away.
    owner: Option<u32>,
    is_kept: AtomicBool,
}

impl SharedMemory {
    /// Creates a block of `len` bytes, all zero, under a name that nobody has. Only processes of this user may open it.
    ///
    /// # Errors
    ///
    /// Where the name is taken (`raw_os_error` is `EEXIST`), empty, longer than 255 bytes, `.` or `..`, or has a slash or
    /// a NUL in it; where `len` is 0; where the system has no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// # let name = format!("doc-create-{}", std::process::id());
    /// let block = multiprocess::SharedMemory::create(&name, 16)?;
    /// assert!(multiprocess::SharedMemory::create(&name, 16).is_err());
    /// assert_eq!(block.len(), 16);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn create(name: &str, len: usize) -> Result<SharedMemory> {
        let operation = || format!("cannot create shared memory {name:?}");
        check_name(name).map_err(|why| Error::refused(operation(), why))?;
        if len == 0 {
            return Err(Error::refused(operation(), "it needs at least 1 byte"));
        }
        let file = named::create(name, len).map_err(|error| failed(operation(), error))?;
        Ok(SharedMemory::of(name, file, len, Some(process::pid())))
    }

    /// Opens the block that has this name, as long as it is when it is opened.
    ///
    /// # Errors
    ///
    /// Where there is none (`raw_os_error` is `ENOENT`) or this user may not open it; where it is empty, as it is for a
    /// moment while it is created; where the name can be none.
    ///
    /// # Examples
    ///
    /// ```
    /// # let name = format!("doc-open-{}", std::process::id());
    /// let block = multiprocess::SharedMemory::create(&name, 16)?;
    /// block.write(0, &[7_u64])?;
    /// assert_eq!(multiprocess::SharedMemory::open(&name)?.read_value::<u64>(0)?, 7);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn open(name: &str) -> Result<SharedMemory> {
        let operation = || format!("cannot open shared memory {name:?}");
        check_name(name).map_err(|why| Error::refused(operation(), why))?;
        let opened = named::open(name).and_then(|file| Ok((named::len(&file)?, file)));
        match opened.map_err(|error| failed(operation(), error))? {
            (0, _) => Err(Error::refused(operation(), "it is empty")),
            (len, file) => Ok(SharedMemory::of(name, file, len, None)),
        }
    }

    fn of(name: &str, file: OwnedFd, len: usize, owner: Option<u32>) -> SharedMemory {
        SharedMemory {
            block: Arc::new(Block {
                name: name.to_owned(),
                file: SharedFd::of(file),
                len,
                owner,
                is_kept: AtomicBool::new(false),
            }),
        }
    }

    /// Returns the name, as Python has it: without a slash.
    ///
    /// # Examples
    ///
    /// ```
    /// # let name = format!("doc-name-{}", std::process::id());
    /// let block = multiprocess::SharedMemory::create(&name, 16)?;
    /// assert_eq!(block.name(), name);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.block.name
    }

    /// Returns how many bytes it had when it was created or opened here.
    ///
    /// # Examples
    ///
    /// ```
    /// # let name = format!("doc-len-{}", std::process::id());
    /// let block = multiprocess::SharedMemory::create(&name, 16)?;
    /// assert_eq!(block.len(), 16);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[allow(
        clippy::len_without_is_empty,
        reason = "a block is never empty, so the question does not arise"
    )]
    pub fn len(&self) -> usize {
        self.block.len
    }

    /// Copies the values that stand at `offset` (in bytes) to `out`.
    ///
    /// # Errors
    ///
    /// Where the block ends before, or somebody has made it shorter.
    ///
    /// # Examples
    ///
    /// ```
    /// # let name = format!("doc-read-{}", std::process::id());
    /// let block = multiprocess::SharedMemory::create(&name, 4)?;
    /// let mut bytes = [1_u8; 4];
    /// block.read(0, &mut bytes)?;
    /// assert_eq!(bytes, [0; 4]);
    /// assert!(block.read(1, &mut bytes).is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn read<T: Pod>(&self, offset: usize, out: &mut [T]) -> Result<()> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(out);
        self.check("read", offset, bytes.len())?;
        named::read_at(&self.block.file, offset, bytes).map_err(|error| self.failed("read", error))
    }

    /// Returns the value that stands at `offset` (in bytes).
    ///
    /// # Errors
    ///
    /// As [`read`](SharedMemory::read).
    ///
    /// # Examples
    ///
    /// ```
    /// # let name = format!("doc-value-{}", std::process::id());
    /// let block = multiprocess::SharedMemory::create(&name, 16)?;
    /// block.write(4, &[-1_i32])?;
    /// assert_eq!(block.read_value::<i32>(4)?, -1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn read_value<T: Pod>(&self, offset: usize) -> Result<T> {
        let mut value = [T::zeroed()];
        self.read(offset, &mut value)?;
        let [value] = value;
        Ok(value)
    }

    /// Copies `values` to `offset` (in bytes). The block does not grow.
    ///
    /// # Errors
    ///
    /// Where the block ends before, or somebody has made it shorter; where the system has no memory left.
    ///
    /// # Examples
    ///
    /// ```
    /// # let name = format!("doc-write-{}", std::process::id());
    /// let block = multiprocess::SharedMemory::create(&name, 16)?;
    /// block.write(0, b"hello")?;
    /// block.write(8, &[7_u64])?;
    /// assert_eq!(block.read_value::<u64>(8)?, 7);
    /// assert!(block.write(16, &[0_u8]).is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn write<T: Pod>(&self, offset: usize, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.check("write", offset, bytes.len())?;
        named::write_at(&self.block.file, offset, bytes)
            .map_err(|error| self.failed("write", error))
    }

    /// Takes the name away, now; who has the block open goes on with it. Any process may do so that may open it.
    ///
    /// # Errors
    ///
    /// Where nothing has this name (any more), or another block has it meanwhile.
    ///
    /// # Examples
    ///
    /// ```
    /// # let name = format!("doc-unlink-{}", std::process::id());
    /// let block = multiprocess::SharedMemory::create(&name, 16)?;
    /// block.unlink()?;
    /// assert!(multiprocess::SharedMemory::open(&name).is_err());
    /// assert!(block.unlink().is_err());
    /// block.write(0, &[1_u8])?;
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn unlink(&self) -> Result<()> {
        self.block
            .unlink()
            .map_err(|error| self.failed("unlink", error))
    }

    /// Lets the name stay when the last handle in the process that created it is dropped; then it stays until somebody
    /// takes it away, or the machine goes down.
    ///
    /// # Examples
    ///
    /// ```
    /// # let name = format!("doc-keep-{}", std::process::id());
    /// let block = multiprocess::SharedMemory::create(&name, 16)?;
    /// block.keep();
    /// drop(block);
    /// multiprocess::SharedMemory::open(&name)?.unlink()?;
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn keep(&self) {
        self.block.is_kept.store(true, Ordering::Relaxed);
    }

    fn check(&self, verb: &str, offset: usize, len: usize) -> Result<()> {
        let end = offset.checked_add(len);
        if end.is_some_and(|end| end <= self.block.len) {
            return Ok(());
        }
        let size = self.block.len;
        let why = format!("{len} bytes from {offset} are past its end, which is at {size}");
        Err(Error::refused(self.operation(verb), why))
    }

    fn failed(&self, verb: &str, error: io::Error) -> Error {
        failed(self.operation(verb), error)
    }

    fn operation(&self, verb: &str) -> String {
        format!("cannot {verb} shared memory {:?}", self.block.name)
    }
}

impl Block {
    /// Takes the name away if it is still this block's.
    fn unlink(&self) -> io::Result<()> {
        if named::identity(&self.name)? != identity(&self.file)? {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "another block has the name now",
            ));
        }
        named::unlink(&self.name)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // A child that was forked has inherited the handle, and is not the owner.
        if self.owner == Some(process::pid()) && !*self.is_kept.get_mut() {
            let _is_gone_already = self.unlink();
        }
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory")
            .field("name", &self.block.name)
            .field("len", &self.block.len)
            .finish()
    }
}

impl Serialize for SharedMemory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let block = &*self.block;
        let file = Descriptor(Arc::clone(&block.file));
        (file, &block.name, block.len as u64).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (file, name, len) = <(Descriptor, String, u64)>::deserialize(deserializer)?;
        check_name(&name).map_err(D::Error::custom)?;
        // Looked at, so that reading it cannot block. It may be shorter by now, which each read and write notices.
        named::len(&file).map_err(D::Error::custom)?;
        Ok(SharedMemory {
            block: Arc::new(Block {
                name,
                file: file.0,
                len: usize::try_from(len).map_err(D::Error::custom)?,
                owner: None,
                is_kept: AtomicBool::new(false),
            }),
        })
    }
}

fn failed(operation: String, error: io::Error) -> Error {
    limits::explained(operation, error)
}

/// Says why this can be no name.
fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("its name is empty"),
        "." | ".." => Err("this is the name of a folder"),
        _ if name.contains('\0') => Err("its name has a NUL in it"),
        _ if name.contains('/') => Err("its name has a slash in it"),
        _ if name.len() > NAME_MAX => Err("its name is longer than 255 bytes"),
        _ => Ok(()),
    }
}
