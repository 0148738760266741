//! Handles, pointers, struct sizes, texts.
use crate::Case;
use crate::api::{Act::*, Api, symbol};
use crate::world::World;
use passrl::abi::status::*;
use passrl::abi::types::*;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

const CONFIG: u32 = size_of::<passrl_config>() as u32;

fn set(api: &Api, w: &mut World, key: *const c_char, value: *const c_char) -> i32 {
    let f = symbol!(api, passrl_config_set(*mut passrl_config, *const c_char, *const c_char) -> i32);
    let before = w.config;
    // SAFETY: a configuration and strings, or NULL.
    let status = unsafe { f(if w.null == "config" { null_mut() } else { &mut w.config }, key, value) };
    *w.said() = api.last_error();
    if status != PASSRL_OK {
        assert_eq!(format!("{before:?}"), format!("{:?}", w.config), "a refused key leaves the configuration alone");
    }
    status
}

fn pair(api: &Api, w: &mut World, key: &CStr, value: &CStr) -> i32 {
    set(api, w, key.as_ptr(), value.as_ptr())
}

fn init(api: &Api, w: &mut World, target: *mut passrl_config, size: u32) -> i32 {
    let f = symbol!(api, passrl_config_init(*mut passrl_config, u32) -> i32);
    // SAFETY: NULL, or a size that must be refused.
    let status = unsafe { f(target, size) };
    *w.said() = api.last_error();
    status
}

fn preset_at(api: &Api, w: &mut World, target: *mut passrl_config, size: u32, name: *const c_char) -> i32 {
    let f = symbol!(api, passrl_config_init_preset(*mut passrl_config, u32, *const c_char) -> i32);
    // SAFETY: a configuration or NULL, a string or NULL.
    let status = unsafe { f(target, size, name) };
    *w.said() = api.last_error();
    status
}

fn preset(api: &Api, w: &mut World, name: *const c_char) -> i32 {
    let target = &raw mut w.config;
    preset_at(api, w, target, CONFIG, name)
}

/// A preset whose configuration is cut at a field of an older header, and untouched where it is refused.
fn preset_cut(api: &Api, w: &mut World, size: usize, name: &CStr) -> i32 {
    let (target, before) = (&raw mut w.config, w.config);
    let status = preset_at(api, w, target, size as u32, name.as_ptr());
    assert_eq!(format!("{before:?}"), format!("{:?}", w.config), "a refused preset leaves the configuration alone");
    status
}

/// Every preset at every size: all of what it sets is there, or it is refused.
#[test]
fn no_preset_is_cut_in_silence() {
    let api = Api::load();
    let mut w = World::new(&api);
    let whole = api.symbol::<unsafe extern "C" fn(i32) -> *const c_char>("passrl_preset_name\0");
    let (mut cut, mut kept, mut index) = (0, 0, 0);
    loop {
        // SAFETY: any number; NULL beyond the last.
        let name = unsafe { whole(index) };
        if name.is_null() {
            break;
        }
        assert_eq!(preset(&api, &mut w, name), PASSRL_OK, "{}", w.sentence);
        let full = w.config;
        for size in (8..CONFIG).step_by(8) {
            let target = &raw mut w.config;
            assert_eq!(init(&api, &mut w, target, CONFIG), PASSRL_OK);
            match preset_at(&api, &mut w, target, size, name) {
                PASSRL_OK => {
                    // What lies beyond has the defaults, and they are the preset's.
                    let as_read = passrl_config { struct_size: CONFIG, ..w.config };
                    assert_eq!(format!("{as_read:?}"), format!("{full:?}"), "preset {index} at {size}");
                    kept += 1;
                }
                status => {
                    assert_eq!(status, PASSRL_ERR_STRUCT_SIZE, "{}", w.sentence);
                    assert!(w.sentence.contains(&format!("struct_size is {size}, and preset \"")), "{}", w.sentence);
                    cut += 1;
                }
            }
        }
        index += 1;
    }
    println!("{index} presets: {kept} sizes keep all, {cut} are refused");
    assert!(index > 80 && kept > 100 && cut > 1000);
}

#[repr(C)]
struct Tensor(*mut c_void, i32, i32, i32, u8, u8, u16, *const i64, *const i64, u64);

fn dlpack(api: &Api, w: &mut World, edit: fn(&mut Tensor)) -> i32 {
    let shape = [2i64, 3];
    let mut tensor = Tensor(64 as *mut c_void, 1, 0, 2, 2, 32, 1, shape.as_ptr(), null(), 0);
    edit(&mut tensor);
    let f = symbol!(api, passrl_view_from_dlpack(*const c_void, *mut passrl_view) -> i32);
    // SAFETY: zero is valid.
    let mut view: passrl_view = unsafe { std::mem::zeroed() };
    // SAFETY: a DLTensor and a view.
    let status = unsafe { f((&raw const tensor).cast(), &mut view) };
    *w.said() = api.last_error();
    assert!(status != PASSRL_OK && view.ndim == 0, "a refused tensor makes no view");
    status
}

fn index(api: &Api, w: &mut World, edit: fn(&mut World)) -> i32 {
    w.slots.clear();
    w.ints("batch.keys", 5, &[7, 7, 9, 7]);
    w.output("index", 6, [4, 1], 1);
    edit(w);
    let f = symbol!(api, passrl_group_index(*const passrl_view, *const passrl_view, *mut i64) -> i32);
    let view = |name: &str| w.slots.get(name).map_or(null(), |s| &raw const s.view);
    let mut groups = -1;
    // SAFETY: views, or what must be refused.
    let status = unsafe { f(view("batch.keys"), view("index"), &mut groups) };
    *w.said() = api.last_error();
    assert!(status != PASSRL_OK && groups == -1, "a refused call leaves num_groups alone");
    status
}

/// Calls that take a plan and one pointer.
fn on_null_plan(api: &Api, w: &mut World, name: &str) -> i32 {
    // The three functions have this type in effect: a plan and a pointer to write to.
    let name = format!("{name}\0");
    let f = api.symbol::<unsafe extern "C" fn(*const passrl_plan, *mut c_void) -> i32>(&name);
    let mut out = 0u64;
    // SAFETY: NULL must be refused.
    let status = unsafe { f(null(), (&raw mut out).cast()) };
    *w.said() = api.last_error();
    assert_eq!(out, 0);
    status
}

fn describe(api: &Api, w: &mut World, plan: bool, buffer: *mut c_char, capacity: usize) -> i32 {
    type F = unsafe extern "C" fn(*const c_void, *mut c_char, usize, *mut usize) -> i32;
    let f = api.symbol::<F>(if plan { "passrl_plan_describe\0" } else { "passrl_context_describe\0" });
    let mut context = null_mut();
    assert_eq!(api.context(w, &mut context), PASSRL_OK);
    let mut needed = 0;
    // SAFETY: a context; NULL as a plan.
    let status = unsafe { f(if plan { null() } else { context.cast() }, buffer, capacity, &mut needed) };
    *w.said() = api.last_error();
    // SAFETY: made above.
    unsafe { symbol!(api, passrl_context_destroy(*mut passrl_context) -> ())(context) };
    status
}

fn reports(api: &Api, w: &mut World, into: bool, other: bool) -> i32 {
    let f = symbol!(api, passrl_report_merge(*mut passrl_report, *const passrl_report) -> i32);
    let mut copy = w.report;
    // SAFETY: reports or NULL.
    let status = unsafe { f(if into { &mut copy } else { null_mut() }, if other { &w.report } else { null() }) };
    *w.said() = api.last_error();
    status
}

fn layout(api: &Api, w: &mut World, sections: bool, count: bool, phase: i32) -> i32 {
    let f = symbol!(api, passrl_partials_layout(*const passrl_plan, i32, *mut passrl_section, usize, *mut usize) -> i32);
    let (mut context, mut plan) = (null_mut(), null_mut());
    assert_eq!(api.context(w, &mut context), PASSRL_OK);
    assert_eq!(api.plan(w, context, &mut plan), PASSRL_OK);
    // SAFETY: zero is valid.
    let mut room: [passrl_section; 4] = unsafe { std::mem::zeroed() };
    let mut n = 0;
    // SAFETY: a live plan and room for four.
    let status =
        unsafe { f(plan, phase, if sections { room.as_mut_ptr() } else { null_mut() }, 4, if count { &mut n } else { null_mut() }) };
    *w.said() = api.last_error();
    // SAFETY: made above.
    unsafe {
        symbol!(api, passrl_plan_destroy(*mut passrl_plan) -> ())(plan);
        symbol!(api, passrl_context_destroy(*mut passrl_context) -> ())(context);
    }
    status
}

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    vec![
        // NULL.
        ("context_out_null", Context, PASSRL_ERR_NULL, "context is NULL; it must point to", |w| w.null = "context"),
        ("plan_out_null", Plan, PASSRL_ERR_NULL, "plan is NULL; it must point to", |w| w.null = "plan_create.plan"),
        ("plan_create_context_null", Plan, PASSRL_ERR_NULL, "context is NULL; make one with", |w| w.null = "plan_create.context"),
        ("config_null", Plan, PASSRL_ERR_NULL, "config is NULL", |w| w.null = "config"),
        ("limits_null", Plan, PASSRL_ERR_NULL, "limits is NULL", |w| w.null = "limits"),
        ("run_plan_null", Run, PASSRL_ERR_NULL, "plan is NULL", |w| w.null = "plan"),
        ("run_batch_null", Run, PASSRL_ERR_NULL, "batch is NULL", |w| w.null = "batch"),
        ("run_outputs_null", Run, PASSRL_ERR_NULL, "outputs is NULL", |w| w.null = "outputs"),
        ("add_plan_null", Add, PASSRL_ERR_NULL, "plan is NULL", |w| w.null = "plan"),
        ("add_batch_null", Add, PASSRL_ERR_NULL, "batch is NULL", |w| w.null = "batch"),
        ("merge_plan_null", Merge, PASSRL_ERR_NULL, "plan is NULL", |w| w.null = "plan"),
        ("apply_plan_null", Apply, PASSRL_ERR_NULL, "plan is NULL", |w| w.null = "plan"),
        ("apply_batch_null", Apply, PASSRL_ERR_NULL, "batch is NULL", |w| w.null = "batch"),
        ("apply_outputs_null", Apply, PASSRL_ERR_NULL, "outputs is NULL", |w| w.null = "outputs"),
        ("partials_init_plan_null", PartialsInit, PASSRL_ERR_NULL, "plan is NULL", |w| w.null = "plan"),
        ("phases_plan_null", Direct(|a, w| on_null_plan(a, w, "passrl_plan_phases")), PASSRL_ERR_NULL, "plan_phases: plan is NULL", |_| ()),
        ("workspace_size_plan_null", Direct(|a, w| on_null_plan(a, w, "passrl_plan_workspace_size")), PASSRL_ERR_NULL, "plan_workspace_size: plan is NULL", |_| ()),
        ("partials_size_plan_null", Direct(|a, w| on_null_plan(a, w, "passrl_partials_size")), PASSRL_ERR_NULL, "partials_size: plan is NULL", |_| ()),
        ("plan_describe_plan_null", Direct(|a, w| describe(a, w, true, null_mut(), 0)), PASSRL_ERR_NULL, "plan_describe: plan is NULL", |_| ()),
        ("describe_buffer_null", Direct(|a, w| describe(a, w, false, null_mut(), 9)), PASSRL_ERR_NULL, "buffer is NULL with capacity 9", |_| ()),
        ("describe_buffer_small", Direct(|a, w| { let mut b = [0; 4]; describe(a, w, false, b.as_mut_ptr(), 4) }), PASSRL_ERR_WORKSPACE, "buffer has 4 bytes, the text needs ", |_| ()),
        ("merge_reports_into_null", Direct(|a, w| reports(a, w, false, true)), PASSRL_ERR_NULL, "into is NULL", |_| ()),
        ("merge_reports_other_null", Direct(|a, w| reports(a, w, true, false)), PASSRL_ERR_NULL, "other is NULL", |_| ()),
        ("merge_reports_size", Direct(|a, w| reports(a, w, true, true)), PASSRL_ERR_STRUCT_SIZE, "passrl_report.struct_size is 3", |w| w.report.struct_size = 3),
        ("layout_count_null", Direct(|a, w| layout(a, w, true, false, 0)), PASSRL_ERR_NULL, "count is NULL", |_| ()),
        ("layout_sections_null", Direct(|a, w| layout(a, w, false, true, 0)), PASSRL_ERR_NULL, "sections is NULL with capacity 4", |_| ()),
        ("layout_phase", Direct(|a, w| layout(a, w, true, true, 2)), PASSRL_ERR_VALUE, "phase is 2; this plan has 2 (0 to 1)", |_| ()),
        // Struct sizes.
        ("options_size_0", Context, PASSRL_ERR_STRUCT_SIZE, "passrl_context_options.struct_size is 0; initialise", |w| w.options.struct_size = 0),
        ("options_size_garbage", Context, PASSRL_ERR_STRUCT_SIZE, "struct_size is 2779096485", |w| w.options.struct_size = 0xA5A5_A5A5),
        ("config_size_0", Plan, PASSRL_ERR_STRUCT_SIZE, "passrl_config.struct_size is 0", |w| w.config.struct_size = 0),
        ("config_size_garbage", Plan, PASSRL_ERR_STRUCT_SIZE, "struct_size is 4294967295", |w| w.config.struct_size = u32::MAX),
        ("config_newer_bytes", Plan, PASSRL_ERR_STRUCT_SIZE, "config: passrl_config of 2312 bytes is newer than this library's (2296 bytes), and byte 2299 is set", |w| { w.config.struct_size = CONFIG + 16; w.config_tail[3] = 1 }),
        ("limits_size_7", Plan, PASSRL_ERR_STRUCT_SIZE, "passrl_limits.struct_size is 7", |w| w.limits.struct_size = 7),
        ("limits_newer_bytes", Plan, PASSRL_ERR_STRUCT_SIZE, "104 bytes is newer than this library's (88 bytes), and byte 103 is set", |w| { w.limits.struct_size = 104; w.limits_tail[15] = 1 }),
        ("batch_size_0", Run, PASSRL_ERR_STRUCT_SIZE, "passrl_batch.struct_size is 0", |w| w.batch.struct_size = 0),
        ("batch_size_garbage", Run, PASSRL_ERR_STRUCT_SIZE, "passrl_batch.struct_size is 65537", |w| w.batch.struct_size = 65537),
        ("batch_newer_bytes", Run, PASSRL_ERR_STRUCT_SIZE, "passrl_batch of ", |w| { w.batch.struct_size += 8; w.batch_tail[0] = 255 }),
        ("outputs_size_0", Run, PASSRL_ERR_STRUCT_SIZE, "passrl_outputs.struct_size is 0", |w| w.outputs.struct_size = 0),
        ("outputs_newer_bytes", Apply, PASSRL_ERR_STRUCT_SIZE, "passrl_outputs of ", |w| { w.outputs.struct_size += 64; w.outputs_tail[63] = 1 }),
        ("report_size_0", Run, PASSRL_ERR_STRUCT_SIZE, "passrl_report.struct_size is 0", |w| w.report_size = Some(0)),
        ("report_size_garbage", Run, PASSRL_ERR_STRUCT_SIZE, "passrl_report.struct_size is 1000000", |w| w.report_size = Some(1_000_000)),
        ("init_null", Direct(|a, w| init(a, w, null_mut(), CONFIG)), PASSRL_ERR_NULL, "config_init: target is NULL; it must point to a passrl_config", |_| ()),
        ("init_size_4", Direct(|a, w| { let c = &raw mut w.config; init(a, w, c, 4) }), PASSRL_ERR_STRUCT_SIZE, "passrl_config.struct_size is 4", |_| ()),
        // A size at which a field is cut in two.
        ("options_half_a_pointer", Context, PASSRL_ERR_STRUCT_SIZE, "passrl_context_options.struct_size is 36, which is no multiple of 8 and may cut a field in two (this library's is 56)", |w| w.options.struct_size = 36),
        ("config_half_a_number", Plan, PASSRL_ERR_STRUCT_SIZE, "passrl_config.struct_size is 2292, which is no multiple of 8", |w| w.config.struct_size = 2292),
        ("limits_half_a_number", Plan, PASSRL_ERR_STRUCT_SIZE, "passrl_limits.struct_size is 12, which is no multiple of 8", |w| w.limits.struct_size = 12),
        ("batch_half_a_pointer", Run, PASSRL_ERR_STRUCT_SIZE, "passrl_batch.struct_size is 44, which is no multiple of 8", |w| w.batch.struct_size = 44),
        ("outputs_half_a_pointer", Run, PASSRL_ERR_STRUCT_SIZE, "passrl_outputs.struct_size is 20, which is no multiple of 8", |w| w.outputs.struct_size = 20),
        ("report_half_a_number", Run, PASSRL_ERR_STRUCT_SIZE, "passrl_report.struct_size is 164, which is no multiple of 8", |w| w.report_size = Some(164)),
        ("init_half_a_number", Direct(|a, w| { let c = &raw mut w.config; init(a, w, c, 100) }), PASSRL_ERR_STRUCT_SIZE, "passrl_config.struct_size is 100, which is no multiple of 8", |_| ()),
        // What an older header does not have is not lost in silence.
        ("set_beyond", Direct(|a, w| pair(a, w, c"k", c"0.5")), PASSRL_ERR_STRUCT_SIZE, "config.struct_size is 8, and k ends at byte 128 of the 2296 of this library's passrl_config; the caller was compiled with an older header, which has no such field: recompile with this library's passrl.h", |w| w.config.struct_size = 8),
        ("set_beyond_by_one", Direct(|a, w| pair(a, w, c"c_clip", c"2")), PASSRL_ERR_STRUCT_SIZE, "config.struct_size is 2288, and c_clip ends at byte 2296", |w| w.config.struct_size = 2288),
        ("set_a_row_beyond", Direct(|a, w| pair(a, w, c"extra_0.weight", c"2")), PASSRL_ERR_STRUCT_SIZE, "and extra_0.weight ends at byte ", |w| w.config.struct_size = 920),
        ("set_rows_beyond", Direct(|a, w| pair(a, w, c"ddof", c"0")), PASSRL_ERR_STRUCT_SIZE, "and extra_0.ddof ends at byte ", |w| w.config.struct_size = 920),
        ("set_a_shorthand_beyond", Direct(|a, w| pair(a, w, c"standardize_outcome", c"mean")), PASSRL_ERR_STRUCT_SIZE, "and outcome.standardize ends at byte 688", |w| w.config.struct_size = 680),
        ("preset_beyond", Direct(|a, w| preset_cut(a, w, std::mem::offset_of!(passrl_config, kl_in_reward), c"verl.grpo")), PASSRL_ERR_STRUCT_SIZE, "struct_size is 2200, and preset \"verl.grpo\" sets kl_in_reward = k1, which ends at byte 2204 of the 2296 of this library's passrl_config; the caller was compiled with an older header", |_| ()),
        // Contexts.
        ("backend_unknown", Context, PASSRL_ERR_VALUE, "options.backend is 3; it is PASSRL_CPU (1)", |w| w.options.backend = 3),
        ("threads_negative", Context, PASSRL_ERR_VALUE, "options.threads is -1; it is 0", |w| w.options.threads = -1),
        ("threads_too_many", Context, PASSRL_ERR_VALUE, "options.threads is 1025", |w| w.options.threads = 1025),
        ("simd_unknown", Context, PASSRL_ERR_VALUE, "options.simd is 9", |w| w.options.simd = 9),
        ("simd_beyond_the_last", Context, PASSRL_ERR_VALUE, "it is one of PASSRL_SIMD_* (0 to 3)", |w| w.options.simd = 4),
        ("small_call_negative", Context, PASSRL_ERR_VALUE, "options.small_call_bytes is -2", |w| w.options.small_call_bytes = -2),
        ("options_reserved", Context, PASSRL_ERR_VALUE, "options.reserved0 is 5; it must be 0", |w| w.options.reserved0 = 5),
        // Texts.
        ("key_null", Direct(|a, w| set(a, w, null(), c"1".as_ptr())), PASSRL_ERR_NULL, "key is NULL", |_| ()),
        ("value_null", Direct(|a, w| set(a, w, c"k".as_ptr(), null())), PASSRL_ERR_NULL, "value is NULL", |_| ()),
        ("set_config_null", Direct(|a, w| pair(a, w, c"k", c"1")), PASSRL_ERR_NULL, "config is NULL", |w| w.null = "config"),
        ("key_unknown", Direct(|a, w| pair(a, w, c"gama", c"1")), PASSRL_ERR_UNKNOWN_NAME, "key \"gama\" is unknown; nearest: gamma", |_| ()),
        ("key_of_row_unknown", Direct(|a, w| pair(a, w, c"outcome.dof", c"1")), PASSRL_ERR_UNKNOWN_NAME, "nearest: outcome.ddof", |_| ()),
        ("row_unknown", Direct(|a, w| pair(a, w, c"extra_10.weight", c"1")), PASSRL_ERR_UNKNOWN_NAME, "key \"extra_10.weight\" is unknown", |_| ()),
        ("key_empty", Direct(|a, w| pair(a, w, c"", c"1")), PASSRL_ERR_UNKNOWN_NAME, "key \"\" is unknown", |_| ()),
        ("choice_unknown", Direct(|a, w| pair(a, w, c"chunk", c"steps")), PASSRL_ERR_VALUE, "chunk is \"steps\"; it is one of: step, ", |_| ()),
        ("number_unknown", Direct(|a, w| pair(a, w, c"k", c"0,5")), PASSRL_ERR_VALUE, "k is \"0,5\"; it must be a number", |_| ()),
        ("count_not_whole", Direct(|a, w| pair(a, w, c"num_extra", c"1.5")), PASSRL_ERR_VALUE, "num_extra is \"1.5\"", |_| ()),
        ("flag_unknown", Direct(|a, w| pair(a, w, c"strict", c"maybe")), PASSRL_ERR_VALUE, "strict is \"maybe\"; it must be true or false", |_| ()),
        ("standardize_unknown", Direct(|a, w| pair(a, w, c"standardize", c"zscore")), PASSRL_ERR_VALUE, "standardize is \"zscore\"; nearest: ", |_| ()),
        ("value_not_utf8", Direct(|a, w| pair(a, w, c"k", c"\xff")), PASSRL_ERR_VALUE, "value is not UTF-8 text", |_| ()),
        ("preset_unknown", Direct(|a, w| preset(a, w, c"grpo".as_ptr())), PASSRL_ERR_UNKNOWN_NAME, "preset \"grpo\" is unknown; nearest: ", |_| ()),
        ("preset_in_capitals", Direct(|a, w| preset(a, w, c"VERL.GRPO".as_ptr())), PASSRL_ERR_UNKNOWN_NAME, "preset \"VERL.GRPO\" is unknown; nearest: verl.grpo, ", |_| ()),
        ("choice_in_capitals", Direct(|a, w| pair(a, w, c"kl_in_reward", c"NONE")), PASSRL_ERR_VALUE, "kl_in_reward is \"NONE\"; it is one of: none, ", |_| ()),
        ("preset_target_null", Direct(|a, w| preset_at(a, w, null_mut(), CONFIG, c"pass".as_ptr())), PASSRL_ERR_NULL, "target is NULL; it must point to a passrl_config", |_| ()),
        ("preset_null", Direct(|a, w| preset(a, w, null())), PASSRL_ERR_NULL, "preset is NULL", |_| ()),
        // DLPack.
        ("dlpack_dimensions", Direct(|a, w| dlpack(a, w, |t| t.3 = 3)), PASSRL_ERR_SHAPE, "dltensor has 3 dimensions; a view has 1 or 2", |_| ()),
        ("dlpack_scalar", Direct(|a, w| dlpack(a, w, |t| t.3 = 0)), PASSRL_ERR_SHAPE, "dltensor has 0 dimensions", |_| ()),
        ("dlpack_lanes", Direct(|a, w| dlpack(a, w, |t| t.6 = 4)), PASSRL_ERR_DTYPE, "dltensor has 4 lanes", |_| ()),
        ("dlpack_type", Direct(|a, w| dlpack(a, w, |t| t.5 = 8)), PASSRL_ERR_DTYPE, "type code 2 with 8 bits", |_| ()),
        ("dlpack_device", Direct(|a, w| dlpack(a, w, |t| t.1 = 10)), PASSRL_ERR_DEVICE, "DLPack device type 10", |_| ()),
        ("dlpack_shape_null", Direct(|a, w| dlpack(a, w, |t| t.7 = null())), PASSRL_ERR_NULL, "dltensor.shape is NULL with 2 dimensions", |_| ()),
        // Group numbers.
        ("index_keys_null", Direct(|a, w| index(a, w, |w| w.drop(&["batch.keys"]))), PASSRL_ERR_NULL, "keys is NULL", |_| ()),
        ("index_null", Direct(|a, w| index(a, w, |w| w.drop(&["index"]))), PASSRL_ERR_NULL, "index is NULL", |_| ()),
        ("index_keys_type", Direct(|a, w| index(a, w, |w| w.view("batch.keys").dtype = 6)), PASSRL_ERR_DTYPE, "keys has dtype i32; it is one of i64", |_| ()),
        ("index_short", Direct(|a, w| index(a, w, |w| w.view("index").shape[0] = 3)), PASSRL_ERR_SHAPE, "index has 3 elements; it must have 4", |_| ()),
        ("index_overlaps_itself", Direct(|a, w| index(a, w, |w| w.view("index").stride[0] = 0)), PASSRL_ERR_LAYOUT, "index with shape [4, 1] and strides [0, 1] overlaps itself", |_| ()),
        ("index_overlaps_keys", Direct(|a, w| index(a, w, |w| { w.view("index").dtype = 5; w.alias("index", "batch.keys", 8) })), PASSRL_ERR_OVERLAP, "index and keys share memory", |_| ()),
        ("index_endless", Direct(|a, w| index(a, w, |w| for n in ["batch.keys", "index"] { let v = w.view(n); v.dtype = 5; v.shape[0] = (1 << 62) + 1; v.stride[0] = 1 << 62 })), PASSRL_ERR_LAYOUT, "reaches further than memory", |_| ()),
    ]
}
