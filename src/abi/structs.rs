//! Structs that grow: `struct_size` says what the caller compiled; missing fields have their defaults, unknown bytes must be zero.
use super::status::*;
use super::types::*;
use crate::error::Result;
use crate::refuse;

/// No struct of this ABI comes near it: a larger `struct_size` is an uninitialised struct.
const MAX_STRUCT_SIZE: u32 = 1 << 16;

/// A struct that begins with `uint32_t struct_size` and grows at its end only.
///
/// # Safety
/// `#[repr(C)]`, first field `struct_size: u32`, every bit pattern valid.
pub unsafe trait Growing: Copy {
    const NAME: &'static str;
    fn defaults() -> Self;
}

fn check_size<T: Growing>(size: u32) -> Result<()> {
    let (name, alignment) = (T::NAME, align_of::<T>());
    if !(8..=MAX_STRUCT_SIZE).contains(&size) {
        return refuse!(
            PASSRL_ERR_STRUCT_SIZE,
            "{name}.struct_size is {size}; initialise the struct with {name}_init(&x, sizeof x), which sets it"
        );
    }
    // No compiler lays the struct out in such a size, whose last field could be half a pointer.
    if !(size as usize).is_multiple_of(alignment) {
        return refuse!(
            PASSRL_ERR_STRUCT_SIZE,
            "{name}.struct_size is {size}, which is no multiple of {alignment} and may cut a field in two (this library's is {}); \
             initialise the struct with {name}_init(&x, sizeof x)",
            size_of::<T>()
        );
    }
    Ok(())
}

/// Copies the caller's struct over the defaults.
///
/// # Safety
/// `caller` is NULL or points to `struct_size` readable bytes.
pub unsafe fn read<T: Growing>(caller: *const T, argument: &str) -> Result<T> {
    if caller.is_null() {
        return refuse!(PASSRL_ERR_NULL, "{argument} is NULL; it must point to a {}", T::NAME);
    }
    // SAFETY: not NULL; the first field is a u32; the caller's struct may have any alignment that its compiler gave it.
    let size = unsafe { caller.cast::<u32>().read_unaligned() };
    check_size::<T>(size)?;
    let known = size_of::<T>();
    let mut value = T::defaults();
    // SAFETY: `size` bytes are readable by the contract; at most sizeof(T) of them are copied into a T, in which every bit pattern is valid.
    unsafe {
        std::ptr::copy_nonoverlapping(caller.cast::<u8>(), (&raw mut value).cast::<u8>(), known.min(size as usize));
    }
    for byte in known..size as usize {
        // SAFETY: byte < size.
        if unsafe { *caller.cast::<u8>().add(byte) } != 0 {
            return refuse!(
                PASSRL_ERR_STRUCT_SIZE,
                "{argument}: {} of {size} bytes is newer than this library's ({known} bytes), and byte {byte} is set; \
                 leave newer fields at their defaults or use a newer libpassrl.so",
                T::NAME
            );
        }
    }
    Ok(value)
}

/// Writes the defaults, at most `struct_size` bytes.
///
/// # Safety
/// `target` is NULL or points to `struct_size` writable bytes.
pub unsafe fn init<T: Growing>(target: *mut T, struct_size: u32) -> Result<i32> {
    // SAFETY: passed on.
    unsafe { write(target, struct_size, T::defaults(), "target") }
}

/// Can a value be written there? `argument` is the target's name.
pub fn writable<T: Growing>(target: *const T, struct_size: u32, argument: &str) -> Result<()> {
    if target.is_null() {
        return refuse!(PASSRL_ERR_NULL, "{argument} is NULL; it must point to a {}", T::NAME);
    }
    check_size::<T>(struct_size)
}

/// Writes a value as a struct of `struct_size` bytes: what fits, zeros beyond what this library knows.
///
/// # Safety
/// As `init`.
pub unsafe fn write<T: Growing>(target: *mut T, struct_size: u32, value: T, argument: &str) -> Result<i32> {
    writable(target, struct_size, argument)?;
    let size = struct_size as usize;
    let known = size_of::<T>().min(size);
    // SAFETY: `size` bytes are writable by the contract.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), target.cast::<u8>(), known);
        target.cast::<u8>().add(known).write_bytes(0, size - known);
        target.cast::<u32>().write_unaligned(struct_size);
    }
    Ok(PASSRL_OK)
}

/// All bytes zero, which is a valid value of every struct here; then `struct_size`.
fn zeroed<T>() -> T {
    // SAFETY: used for the repr(C) structs below alone: integers, floats, raw pointers and Option<fn>, for which zero is valid.
    unsafe { std::mem::zeroed() }
}

macro_rules! growing {
    ($($T:ident { $($field:ident = $value:expr),* $(,)? })*) => {$(
        // SAFETY: repr(C), begins with struct_size, made of integers, floats, raw pointers and nullable function pointers.
        unsafe impl Growing for $T {
            const NAME: &'static str = stringify!($T);
            fn defaults() -> Self {
                $T { struct_size: size_of::<$T>() as u32, $($field: $value,)* ..zeroed() }
            }
        }
    )*};
}

growing! {
    passrl_limits {}
    passrl_batch {}
    passrl_outputs {}
    passrl_collective { device_type = super::constants::PASSRL_CPU }
    passrl_report { first_rollout = -1, first_group = -1, first_stream = -1 }
    passrl_context_options { backend = super::constants::PASSRL_CPU, small_call_bytes = -1 }
}

// SAFETY: as above; the defaults come from the one table of presets.
unsafe impl Growing for passrl_config {
    const NAME: &'static str = "passrl_config";
    fn defaults() -> Self {
        super::config::from_model(&crate::model::presets::DEFAULT.config())
    }
}

/// Fills limits with zeros (defaults), writing at most `struct_size` bytes. Pass `sizeof *target`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_limits_init(target: *mut passrl_limits, struct_size: u32) -> passrl_status {
    // SAFETY: the caller's pointer and size are passed on; likewise below.
    super::guard("passrl_limits_init", || unsafe { init(target, struct_size) })
}

/// Fills a batch with "nothing given", writing at most `struct_size` bytes. Pass `sizeof *target`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_batch_init(target: *mut passrl_batch, struct_size: u32) -> passrl_status {
    // SAFETY: as passrl_limits_init.
    super::guard("passrl_batch_init", || unsafe { init(target, struct_size) })
}

/// Fills outputs with "nothing wanted", writing at most `struct_size` bytes. Pass `sizeof *target`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_outputs_init(target: *mut passrl_outputs, struct_size: u32) -> passrl_status {
    // SAFETY: as passrl_limits_init.
    super::guard("passrl_outputs_init", || unsafe { init(target, struct_size) })
}

/// Fills a collective with zeros and host memory, writing at most `struct_size` bytes. Pass `sizeof *target`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_collective_init(target: *mut passrl_collective, struct_size: u32) -> passrl_status {
    // SAFETY: as passrl_limits_init.
    super::guard("passrl_collective_init", || unsafe { init(target, struct_size) })
}

/// Fills context options with their defaults (CPU), writing at most `struct_size` bytes. Pass `sizeof *target`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_context_options_init(target: *mut passrl_context_options, struct_size: u32) -> passrl_status {
    // SAFETY: as passrl_limits_init.
    super::guard("passrl_context_options_init", || unsafe { init(target, struct_size) })
}

/// Fills a report with zeros and "no finding", writing at most `struct_size` bytes. Pass `sizeof *target`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn passrl_report_init(target: *mut passrl_report, struct_size: u32) -> passrl_status {
    // SAFETY: as passrl_limits_init.
    super::guard("passrl_report_init", || unsafe { init(target, struct_size) })
}
