// The driver API of initialisation, devices and contexts. CUDASIM_DEVICES (1 to 8, else 1) devices, all alike.
#include "internal.h"

namespace cudasim {
bool initialised;
std::set<Context*> contexts;  // destroyed ones stay, so that their use is told from nonsense

namespace {
thread_local std::vector<Context*> stack;
Context* primaries[8];

Context* new_context(int device, bool is_primary) {
    Context* c = new Context{device};
    c->primary = is_primary;
    c->null = new_stream(c, true);
    contexts.insert(c);
    return c;
}

void destroy(Context* c) {
    drain_context(c);
    drop_streams(c);
    drop_modules(c);
    release_all(c);
    c->alive = false;
}
}  // namespace

int device_count() {
    static const int n = getenv("CUDASIM_DEVICES") ? std::min(8, std::max(0, atoi(getenv("CUDASIM_DEVICES")))) : 1;
    return n;
}

Context* current() { return stack.empty() ? nullptr : stack.back(); }

Context* primary(int device) {
    Context*& c = primaries[device];
    if (!c || !c->alive) c = new_context(device, true);
    return c;
}

int need_context(bool even_failed) {
    if (!initialised) return NOT_INITIALIZED;
    Context* c = current();
    if (!c) return INVALID_CONTEXT;
    if (!c->alive) return CONTEXT_IS_DESTROYED;
    if (c->primary && !c->retains) {
        report(nullptr, "the primary context of device %d is used, and nobody retains it", c->device);
        return CONTEXT_IS_DESTROYED;
    }
    return even_failed ? SUCCESS : c->failed;
}
}  // namespace cudasim

using namespace cudasim;
namespace {
bool known(Context* c) { return contexts.count(c); }
bool device_exists(int device) { return device >= 0 && device < device_count(); }

const std::map<int, std::pair<const char*, const char*>> ERRORS{
    {0, {"CUDA_SUCCESS", "no error"}},
    {1, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {2, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {3, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
    {4, {"CUDA_ERROR_DEINITIALIZED", "driver shutting down"}},
    {34, {"CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"}},
    {46, {"CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"}},
    {100, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {101, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {200, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {201, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {209, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
    {218, {"CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"}},
    {221, {"CUDA_ERROR_JIT_COMPILER_NOT_FOUND", "PTX JIT compiler library not found"}},
    {222, {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."}},
    {304, {"CUDA_ERROR_OPERATING_SYSTEM", "OS call failed or operation not supported on this OS"}},
    {400, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {500, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {600, {"CUDA_ERROR_NOT_READY", "device not ready"}},
    {700, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {701, {"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"}},
    {702, {"CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"}},
    {709, {"CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"}},
    {716, {"CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"}},
    {719, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
    {801, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
    {803, {"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"}},
    {900, {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
    {901, {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"}},
    {903, {"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"}},
    {904, {"CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"}},
    {906, {"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would have caused an implicit dependency on a capturing stream"}},
    {907, {"CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"}},
    {908, {"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture sequence from another thread"}},
    {999, {"CUDA_ERROR_UNKNOWN", "unknown error"}},
};
}  // namespace

API int cuInit(u32 flags) {
    ENTER
    if (flags) return INVALID_VALUE;
    load_libraries();
    initialised = true;
    return device_count() ? SUCCESS : 100;
}
API int cuDriverGetVersion(int* version) {
    ENTER
    const char* asked = getenv("CUDASIM_DRIVER_VERSION");
    *version = asked ? atoi(asked) : 13000;
    return SUCCESS;
}
// Undocumented; NVRTC asks for it where a driver is, and takes "not found" for none of its tables.
API int cuGetExportTable(const void** table, const void*) {
    ENTER
    if (table) *table = nullptr;
    return NOT_FOUND;
}
API int cuGetErrorName(int code, const char** out) {
    ENTER
    auto found = ERRORS.find(code);
    *out = found == ERRORS.end() ? nullptr : found->second.first;
    return *out ? SUCCESS : INVALID_VALUE;
}
API int cuGetErrorString(int code, const char** out) {
    ENTER
    auto found = ERRORS.find(code);
    *out = found == ERRORS.end() ? nullptr : found->second.second;
    return *out ? SUCCESS : INVALID_VALUE;
}

API int cuDeviceGetCount(int* count) {
    NEED_INIT
    *count = device_count();
    return SUCCESS;
}
API int cuDeviceGet(int* device, int ordinal) {
    NEED_INIT
    if (!device_exists(ordinal)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
API int cuDeviceGetName(char* out, int capacity, int device) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    snprintf(out, size_t(capacity), "cudasim (simulated)");
    return SUCCESS;
}
API int cuDeviceGetUuid_v2(u8* out, int device) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    memset(out, 7 + device, 16);
    return SUCCESS;
}
API int cuDeviceTotalMem_v2(size_t* out, int device) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    *out = TOTAL_MEMORY;
    return SUCCESS;
}
API int cuDeviceGetAttribute(int* out, int which, int device) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    *out = attribute(which);
    return SUCCESS;
}
API int cuDeviceComputeCapability(int* major, int* minor, int device) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    *major = attribute(75);
    *minor = attribute(76);
    return SUCCESS;
}

API int cuDevicePrimaryCtxRetain(Context** out, int device) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    *out = primary(device);
    (*out)->retains++;
    return SUCCESS;
}
API int cuDevicePrimaryCtxRelease_v2(int device) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    Context* c = primary(device);
    if (!c->retains) {
        report(nullptr, "the primary context of device %d is released more often than retained", device);
        return INVALID_CONTEXT;
    }
    // The last one destroys it, with all that it holds; the next retain makes another.
    if (!--c->retains) destroy(c);
    return SUCCESS;
}
API int cuDevicePrimaryCtxReset_v2(int device) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    Context* c = primary(device);
    const int retains = c->retains;
    destroy(c);
    c->retains = 0;
    primary(device)->retains = retains;
    return SUCCESS;
}
API int cuDevicePrimaryCtxGetState(int device, u32* flags, int* active) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    *flags = 0;
    *active = primary(device)->retains > 0;
    return SUCCESS;
}
API int cuDevicePrimaryCtxSetFlags_v2(int device, u32) {
    NEED_INIT
    return device_exists(device) ? SUCCESS : INVALID_DEVICE;
}

API int cuCtxCreate_v2(Context** out, u32, int device) {
    NEED_INIT
    if (!device_exists(device)) return INVALID_DEVICE;
    *out = new_context(device, false);
    stack.push_back(*out);
    return SUCCESS;
}
API int cuCtxDestroy_v2(Context* c) {
    NEED_INIT
    if (!known(c)) return INVALID_CONTEXT;
    if (!c->alive) return CONTEXT_IS_DESTROYED;
    if (c->primary) {
        report(nullptr, "cuCtxDestroy of a primary context, which belongs to all");
        return INVALID_CONTEXT;
    }
    destroy(c);
    if (current() == c) stack.pop_back();
    return SUCCESS;
}
API int cuCtxGetCurrent(Context** out) {
    NEED_INIT
    *out = current();
    return SUCCESS;
}
API int cuCtxSetCurrent(Context* c) {
    NEED_INIT
    if (c && !known(c)) return INVALID_CONTEXT;
    if (c && !c->alive) return CONTEXT_IS_DESTROYED;
    if (!stack.empty()) stack.pop_back();
    if (c) stack.push_back(c);
    return SUCCESS;
}
API int cuCtxPushCurrent_v2(Context* c) {
    NEED_INIT
    if (!c || !known(c)) return INVALID_CONTEXT;
    if (!c->alive) return CONTEXT_IS_DESTROYED;
    stack.push_back(c);
    return SUCCESS;
}
API int cuCtxPopCurrent_v2(Context** out) {
    NEED_INIT
    if (stack.empty()) return INVALID_CONTEXT;
    if (out) *out = stack.back();
    stack.pop_back();
    return SUCCESS;
}
API int cuCtxGetDevice(int* out) {
    ENTER
    if (int e = need_context(true)) return e;
    *out = current()->device;
    return SUCCESS;
}
API int cuCtxGetApiVersion(Context* c, u32* version) {
    NEED_INIT
    if (c && !known(c)) return INVALID_CONTEXT;
    *version = 3020;
    return SUCCESS;
}
API int cuCtxGetFlags(u32* flags) {
    NEED_CONTEXT
    *flags = 0;
    return SUCCESS;
}
API int cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    NEED_CONTEXT
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return SUCCESS;
}
API int cuCtxSynchronize() {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    return drain_context(current());
}
