// The driver API of memory: allocation, copies, fills, what a pointer is. Copies between host and device are asynchronous only in the stream's order:
// from pageable memory they are taken at the call; to pageable memory they are done when the call returns.
#include "internal.h"

namespace cudasim {
namespace {
std::map<uptr, size_t> pinned;
}
bool is_pinned(uptr p, size_t bytes) {
    auto after = pinned.upper_bound(p);
    if (after == pinned.begin()) return false;
    --after;
    return p + bytes <= after->first + after->second;
}
u64 host_allocation_count() { return pinned.size(); }

namespace {
enum class On { host, device };

int check_range(uptr p, size_t n, On where, const char* function) {
    if (where == On::device && n && !allocation_of(p, n)) {
        report(nullptr, "%s: %zu bytes at %#zx are not inside a device allocation", function, n, size_t(p));
        return INVALID_VALUE;
    }
    return SUCCESS;
}

int copy(uptr to, On to_where, uptr from, On from_where, size_t n, const char* function) {
    if (!n) return SUCCESS;
    if (int e = check_range(to, n, to_where, function)) return e;
    if (int e = check_range(from, n, from_where, function)) return e;
    Allocation *target = find_allocation(to), *source = find_allocation(from);
    Open open_source(source ? source->context : current()), open_target(target ? target->context : current());
    memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), n);
    if (to_where == On::device && from_where == On::device) copy_initialised(to, from, n);
    if (to_where == On::device && from_where == On::host) mark_initialised(to, n);
    return SUCCESS;
}

int to_device(uptr to, const void* from, size_t n, Stream* s, const char* function) {
    if (int e = check_range(to, n, On::device, function)) return e;
    const u8* bytes = static_cast<const u8*>(from);
    // Pinned memory is read when the copy runs, as on a device; so is every source in a capture.
    if (s->capture || is_pinned(uptr(from), n)) return enqueue(s, [=] { return copy(to, On::device, uptr(from), On::host, n, function); });
    auto staged = std::make_shared<std::vector<u8>>(bytes, bytes + n);
    return enqueue(s, [=] { return copy(to, On::device, uptr(staged->data()), On::host, n, function); });
}
int to_host(void* to, uptr from, size_t n, Stream* s, const char* function) {
    if (int e = check_range(from, n, On::device, function)) return e;
    if (int e = enqueue(s, [=] { return copy(uptr(to), On::host, from, On::device, n, function); })) return e;
    return s->capture || is_pinned(uptr(to), n) ? SUCCESS : drain(s);
}
int on_device(uptr to, uptr from, size_t n, Stream* s, const char* function) {
    if (int e = check_range(to, n, On::device, function)) return e;
    if (int e = check_range(from, n, On::device, function)) return e;
    return enqueue(s, [=] { return copy(to, On::device, from, On::device, n, function); });
}
int any(uptr to, uptr from, size_t n, Stream* s, const char* function) {
    const bool to_arena = is_arena(to), from_arena = is_arena(from);
    if (to_arena && from_arena) return on_device(to, from, n, s, function);
    if (to_arena) return to_device(to, reinterpret_cast<void*>(from), n, s, function);
    if (from_arena) return to_host(reinterpret_cast<void*>(to), from, n, s, function);
    return enqueue(s, [=] { return copy(to, On::host, from, On::host, n, function); });
}

template <class T>
int fill(uptr p, T value, size_t n, Stream* s, const char* function) {
    const size_t bytes = n * sizeof(T);
    if (p % sizeof(T)) return INVALID_VALUE;
    if (int e = check_range(p, bytes, On::device, function)) return e;
    if (!n) return SUCCESS;
    return enqueue(s, [=] {
        if (int e = check_range(p, bytes, On::device, function)) return e;
        Open open(find_allocation(p)->context);
        std::fill_n(reinterpret_cast<T*>(p), n, value);
        mark_initialised(p, bytes);
        stats.memset_bytes += bytes;
        keep_stats("");
        return int(SUCCESS);
    });
}
}  // namespace
}  // namespace cudasim

using namespace cudasim;
#define SYNCHRONOUS \
    NEED_CONTEXT NOT_IN_CAPTURE Stream* s = current()->null;
#define AND_WAIT(call)                     \
    if (int failed_ = (call)) return failed_; \
    return drain(s);

API int cuMemGetInfo_v2(size_t* available, size_t* total) {
    NEED_CONTEXT
    *available = TOTAL_MEMORY - live_bytes;
    *total = TOTAL_MEMORY;
    return SUCCESS;
}
API int cuMemAlloc_v2(uptr* out, size_t n) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    return allocate(out, n, current());
}
// Waits for the device, as the driver's does.
API int cuMemFree_v2(uptr p) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    if (!p) return SUCCESS;
    drain_context(current());
    const int e = release(p);
    if (e) report(nullptr, "cuMemFree of %#zx, which is no living allocation", size_t(p));
    return e;
}
// The memory is there at once: order of allocation on a stream is not simulated.
API int cuMemAllocAsync(uptr* out, size_t n, void* handle) {
    NEED_STREAM(handle)
    if (s->capture) {
        s->capture->spoilt = true;
        report(nullptr, "cuMemAllocAsync in a capture is not simulated");
        return CAPTURE_UNSUPPORTED;
    }
    return allocate(out, n, current());
}
API int cuMemFreeAsync(uptr p, void* handle) {
    NEED_STREAM(handle)
    if (!p) return SUCCESS;
    Allocation* a = find_allocation(p);
    if (!a || !a->live || a->base != p) {
        report(nullptr, "cuMemFreeAsync of %#zx, which is no living allocation", size_t(p));
        return INVALID_VALUE;
    }
    return enqueue(s, [p] { return release(p); });
}
API int cuMemGetAddressRange_v2(uptr* base, size_t* size, uptr p) {
    NEED_CONTEXT
    Allocation* a = allocation_of(p, 1);
    if (!a) return NOT_FOUND;
    if (base) *base = a->base;
    if (size) *size = a->size;
    return SUCCESS;
}

API int cuMemcpyHtoD_v2(uptr to, const void* from, size_t n) {
    SYNCHRONOUS
    AND_WAIT(to_device(to, from, n, s, __func__))
}
API int cuMemcpyDtoH_v2(void* to, uptr from, size_t n) {
    SYNCHRONOUS
    AND_WAIT(to_host(to, from, n, s, __func__))
}
// Not waited for, as the driver's is not.
API int cuMemcpyDtoD_v2(uptr to, uptr from, size_t n) {
    SYNCHRONOUS
    return on_device(to, from, n, s, __func__);
}
API int cuMemcpy(uptr to, uptr from, size_t n) {
    SYNCHRONOUS
    AND_WAIT(any(to, from, n, s, __func__))
}
API int cuMemcpyHtoDAsync_v2(uptr to, const void* from, size_t n, void* handle) {
    NEED_STREAM(handle)
    return to_device(to, from, n, s, __func__);
}
API int cuMemcpyDtoHAsync_v2(void* to, uptr from, size_t n, void* handle) {
    NEED_STREAM(handle)
    return to_host(to, from, n, s, __func__);
}
API int cuMemcpyDtoDAsync_v2(uptr to, uptr from, size_t n, void* handle) {
    NEED_STREAM(handle)
    return on_device(to, from, n, s, __func__);
}
API int cuMemcpyAsync(uptr to, uptr from, size_t n, void* handle) {
    NEED_STREAM(handle)
    return any(to, from, n, s, __func__);
}
API int cuMemsetD8_v2(uptr p, u8 value, size_t n) {
    SYNCHRONOUS
    return fill(p, value, n, s, __func__);
}
API int cuMemsetD16_v2(uptr p, uint16_t value, size_t n) {
    SYNCHRONOUS
    return fill(p, value, n, s, __func__);
}
API int cuMemsetD32_v2(uptr p, u32 value, size_t n) {
    SYNCHRONOUS
    return fill(p, value, n, s, __func__);
}
API int cuMemsetD8Async(uptr p, u8 value, size_t n, void* handle) {
    NEED_STREAM(handle)
    return fill(p, value, n, s, __func__);
}
API int cuMemsetD16Async(uptr p, uint16_t value, size_t n, void* handle) {
    NEED_STREAM(handle)
    return fill(p, value, n, s, __func__);
}
API int cuMemsetD32Async(uptr p, u32 value, size_t n, void* handle) {
    NEED_STREAM(handle)
    return fill(p, value, n, s, __func__);
}

static int pin(void** out, size_t n) {
    if (!n) return INVALID_VALUE;
    *out = aligned_alloc(PAGE, (n + PAGE - 1) & ~(PAGE - 1));
    if (!*out) return OUT_OF_MEMORY;
    pinned[uptr(*out)] = n;
    return SUCCESS;
}
API int cuMemHostAlloc(void** out, size_t n, u32) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    return pin(out, n);
}
API int cuMemAllocHost_v2(void** out, size_t n) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    return pin(out, n);
}
API int cuMemFreeHost(void* p) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    if (!pinned.erase(uptr(p))) return INVALID_VALUE;
    drain_context(current());
    free(p);
    return SUCCESS;
}
API int cuMemHostGetDevicePointer_v2(uptr* out, void* p, u32) {
    NEED_CONTEXT
    if (!is_pinned(uptr(p), 1)) return INVALID_VALUE;
    *out = uptr(p);
    return SUCCESS;
}

namespace {
// One attribute of a pointer (CUpointer_attribute); false where it has none such.
bool describe(int which, uptr p, void* out) {
    Allocation* a = allocation_of(p, 1);
    const bool host = is_pinned(p, 1);
    if (!a && !host) return false;
    switch (which) {
        case 1: *static_cast<Context**>(out) = a ? a->context : current(); return true;
        case 2: *static_cast<u32*>(out) = a ? 2 : 1; return true;
        case 3: *static_cast<uptr*>(out) = p; return true;
        case 4: *static_cast<uptr*>(out) = p; return host;
        case 7: *static_cast<u64*>(out) = a ? a->base : p; return true;
        case 8: *static_cast<u32*>(out) = 0; return true;
        case 9: *static_cast<int*>(out) = a ? a->context->device : 0; return true;
        case 11: *static_cast<uptr*>(out) = a ? a->base : p; return true;
        case 12: *static_cast<size_t*>(out) = a ? a->size : 0; return true;
        case 13: *static_cast<u32*>(out) = 1; return true;
        default: return false;
    }
}
size_t width(int which) { return which == 2 || which == 8 || which == 9 || which == 13 ? 4 : 8; }
}  // namespace
API int cuPointerGetAttribute(void* out, int which, uptr p) {
    NEED_INIT
    return describe(which, p, out) ? SUCCESS : INVALID_VALUE;
}
// Of a pointer that CUDA does not know, nulls and zeros, and success.
API int cuPointerGetAttributes(u32 count, const int* which, void** out, uptr p) {
    NEED_INIT
    for (u32 i = 0; i < count; i++)
        if (!describe(which[i], p, out[i])) {
            memset(out[i], 0, width(which[i]));
            if (which[i] == 9) *static_cast<int*>(out[i]) = -2;
        }
    return SUCCESS;
}
