// The driver API of modules, functions and launches. Device code cannot be run here: an image is looked at as far as it can be, and its kernels are
// those of the same name in the loaded kernel libraries.
#include "internal.h"

namespace cudasim {
namespace {
struct Function;
struct Module {
    Context* context;
    std::string names;  // of a cubin: its section names; of PTX: the text; else empty, and every name is taken to be there
    bool look;
    std::map<std::string, std::unique_ptr<Function>> functions;
};
struct Function {
    Module* module;
    Entry* entry;
    int max_dynamic = int(DEFAULT_SHARED);
};
std::set<Module*> modules;
std::set<Function*> functions;

void drop(Module* m) {
    for (auto& [name, f] : m->functions) functions.erase(f.get());
    modules.erase(m);
    delete m;
}

template <class T>
T field(const u8* at) {
    T v;
    memcpy(&v, at, sizeof v);
    return v;
}

// What the driver would take: a fat binary, an ELF file for a GPU, or PTX text.
int read_image(const u8* image, Module& module) {
    if (field<u32>(image) == 0x466243B1) image = field<const u8*>(image + 8);  // nvcc's wrapper of a fat binary
    if (field<u32>(image) == 0xBA55ED50) return SUCCESS;                       // compressed inside: not looked into
    if (!memcmp(image, "\x7f" "ELF", 4)) {
        if (field<uint16_t>(image + 18) != 190) return INVALID_IMAGE;  // EM_CUDA
        const u64 sections = field<u64>(image + 40);
        const u32 size = field<uint16_t>(image + 58), count = field<uint16_t>(image + 60), strings = field<uint16_t>(image + 62);
        const u8* header = image + sections + u64(strings) * size;
        if (strings >= count) return INVALID_IMAGE;
        module.names.assign(reinterpret_cast<const char*>(image) + field<u64>(header + 24), field<u64>(header + 32));
        module.look = true;
        return SUCCESS;
    }
    const char* text = reinterpret_cast<const char*>(image);
    while (*text == ' ' || *text == '\n' || *text == '\r' || *text == '\t') text++;
    if (strncmp(text, "//", 2) && *text != '.') return INVALID_IMAGE;
    module.names = text;
    module.look = true;
    return module.names.find(".version") == std::string::npos ? INVALID_PTX : SUCCESS;
}

bool holds(const Module& m, const std::string& name) {
    if (!m.look) return true;
    if (m.names.find('\0') != std::string::npos) return m.names.find(std::string(1, '\0') + ".text." + name + std::string(1, '\0')) != std::string::npos;
    for (size_t at = 0; (at = m.names.find(".entry " + name, at)) != std::string::npos; at++) {
        const char after = m.names[at + 7 + name.size()];
        if (!isalnum(after) && after != '_' && after != '$') return true;
    }
    return false;
}
}  // namespace

u64 module_count() { return modules.size(); }
void drop_modules(Context* c) {
    std::vector<Module*> gone;
    for (Module* m : modules)
        if (m->context == c) gone.push_back(m);
    for (Module* m : gone) drop(m);
}
}  // namespace cudasim

using namespace cudasim;

static int load(Module** out, const u8* image) {
    if (!image || !out) return INVALID_VALUE;
    auto module = std::make_unique<Module>();
    module->context = current();
    module->look = false;
    if (int e = read_image(image, *module)) return e;
    *out = module.release();
    modules.insert(*out);
    return SUCCESS;
}
API int cuModuleLoadData(Module** out, const u8* image) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    return load(out, image);
}
// The options' logs stay as the caller left them.
API int cuModuleLoadDataEx(Module** out, const u8* image, u32 count, const int* options, void** values) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    if (count && (!options || !values)) return INVALID_VALUE;
    return load(out, image);
}
API int cuModuleUnload(Module* m) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    if (!modules.count(m)) return INVALID_HANDLE;
    drain_context(m->context);
    drop(m);
    return SUCCESS;
}
API int cuModuleGetFunction(Function** out, Module* m, const char* name) {
    NEED_CONTEXT
    if (!modules.count(m)) return INVALID_HANDLE;
    auto found = entries().find(name);
    const bool in_image = holds(*m, name);
    if (in_image && found == entries().end()) report(nullptr, "cuModuleGetFunction: the image may hold %s, but no kernel library is loaded that does", name);
    if (!in_image || found == entries().end()) return NOT_FOUND;
    std::unique_ptr<Function>& f = m->functions[name];
    if (!f) f.reset(new Function{m, &found->second});
    functions.insert(f.get());
    *out = f.get();
    return SUCCESS;
}
API int cuFuncGetModule(Module** out, Function* f) {
    NEED_CONTEXT
    if (!functions.count(f)) return INVALID_HANDLE;
    *out = f->module;
    return SUCCESS;
}
API int cuFuncSetAttribute(Function* f, int which, int value) {
    NEED_CONTEXT
    if (!functions.count(f)) return INVALID_HANDLE;
    if (which == 8) {  // the most dynamic shared memory
        if (value < 0 || value > attribute(97)) return INVALID_VALUE;
        f->max_dynamic = value;
    }
    return which == 8 || which == 9 ? SUCCESS : INVALID_VALUE;
}
API int cuFuncSetCacheConfig(Function* f, int) {
    NEED_CONTEXT
    return functions.count(f) ? SUCCESS : INVALID_HANDLE;
}
// Registers, local memory and the like are the compiler's to say: 0 here. Static shared memory is known once the kernel has run.
API int cuFuncGetAttribute(int* out, int which, Function* f) {
    NEED_CONTEXT
    if (!functions.count(f)) return INVALID_HANDLE;
    switch (which) {
        case 0: *out = f->entry->max_threads; break;
        case 1: *out = int(f->entry->static_shared); break;
        case 5:
        case 6: *out = attribute(75) * 10 + attribute(76); break;
        case 8: *out = f->max_dynamic; break;
        case 9: *out = -1; break;
        default: *out = 0;
    }
    return SUCCESS;
}
API int cuFuncGetParamInfo(Function* f, size_t index, size_t* offset, size_t* size) {
    NEED_CONTEXT
    if (!functions.count(f)) return INVALID_HANDLE;
    size_t at = 0;
    for (size_t i = 0; i < f->entry->sizes.size(); i++) {
        at = (at + f->entry->alignments[i] - 1) / f->entry->alignments[i] * f->entry->alignments[i];
        if (i == index) {
            *offset = at;
            if (size) *size = f->entry->sizes[i];
            return SUCCESS;
        }
        at += f->entry->sizes[i];
    }
    return INVALID_VALUE;
}
// By threads and shared memory alone: registers are not known here.
static int occupancy(int* out, Function* f, int block, size_t dynamic) {
    if (!functions.count(f)) return INVALID_HANDLE;
    if (block <= 0 || block > f->entry->max_threads) return INVALID_VALUE;
    const int by_threads = attribute(39) / ((block + 31) / 32 * 32);
    const size_t shared = f->entry->static_shared + dynamic + 1024;
    *out = std::min({by_threads, int(size_t(attribute(81)) / shared), 32});
    return SUCCESS;
}
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* out, Function* f, int block, size_t dynamic) {
    NEED_CONTEXT
    return occupancy(out, f, block, dynamic);
}
API int cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* out, Function* f, int block, size_t dynamic, u32) {
    NEED_CONTEXT
    return occupancy(out, f, block, dynamic);
}

API int cuLaunchKernel(Function* f, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 dynamic, void* handle, void** parameters, void** extra) {
    NEED_CONTEXT
    if (!functions.count(f)) return INVALID_HANDLE;
    Context* context = f->module->context;
    const char* name = f->entry->name.c_str();
    if (context != current()) {
        report(nullptr, "cuLaunchKernel of %s: its module belongs to another context than the current one", name);
        return INVALID_HANDLE;
    }
    Stream* stream = find_stream(handle);
    if (!stream) {
        report(nullptr, "cuLaunchKernel of %s: no such stream in the current context", name);
        return INVALID_HANDLE;
    }
    const auto refuse = [&](int code, const char* why) {
        report(nullptr, "cuLaunchKernel of %s refused: %s; grid %u x %u x %u, block %u x %u x %u, %u bytes of dynamic shared memory", name, why, gx, gy, gz, bx,
               by, bz, dynamic);
        return code;
    };
    if (!gx || !gy || !gz || !bx || !by || !bz) return refuse(INVALID_VALUE, "a dimension of 0");
    if (gx > u32(attribute(5)) || gy > u32(attribute(6)) || gz > u32(attribute(7))) return refuse(INVALID_VALUE, "the grid is too large");
    if (bx > u32(attribute(2)) || by > u32(attribute(3)) || bz > u32(attribute(4)) || u64(bx) * by * bz > u64(attribute(1)))
        return refuse(INVALID_VALUE, "the block is too large");
    if (u64(bx) * by * bz > u64(f->entry->max_threads)) return refuse(LAUNCH_OUT_OF_RESOURCES, "more threads than its __launch_bounds__");
    if (dynamic > u32(f->max_dynamic)) return refuse(INVALID_VALUE, "more dynamic shared memory than its attribute allows (48 KB unless cuFuncSetAttribute has set it)");
    if (extra) return refuse(NOT_SUPPORTED, "`extra` is not simulated");
    // Arguments are copied now, as the driver does.
    auto storage = std::make_shared<std::vector<u8>>();
    std::vector<size_t> at;
    for (size_t i = 0; i < f->entry->sizes.size(); i++) {
        if (!parameters || !parameters[i]) return refuse(INVALID_VALUE, "an argument's pointer is null");
        storage->resize((storage->size() + 31) & ~size_t(31));
        at.push_back(storage->size());
        storage->insert(storage->end(), static_cast<u8*>(parameters[i]), static_cast<u8*>(parameters[i]) + f->entry->sizes[i]);
    }
    if (storage->size() > 4096 + 31 * at.size()) return refuse(INVALID_VALUE, "more than 4096 bytes of arguments");
    const Geometry geometry{{gx, gy, gz}, {bx, by, bz}, dynamic, f->max_dynamic};
    Entry* entry = f->entry;
    return enqueue(stream, [=] {
        // Aligned as in the kernel's parameter space.
        std::vector<u8> room(storage->size() + 64);
        u8* begin = reinterpret_cast<u8*>((uptr(room.data()) + 63) & ~uptr(63));
        memcpy(begin, storage->data(), storage->size());
        std::vector<void*> arguments;
        for (size_t offset : at) arguments.push_back(begin + offset);
        return run_kernel(context, *entry, geometry, arguments.data());
    });
}
