// What the parts of the simulated driver know of one another. One lock (`lock`) guards all of it.
#pragma once
#include "control.h"
#include "cudasim.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#undef warpSize
#undef __device__
#undef __host__
#undef __constant__
#undef __forceinline__
#undef __shared__
#include <pthread.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace cudasim {
using u8 = unsigned char;
using u32 = unsigned;
using u64 = uint64_t;
using i64 = int64_t;
using uptr = uintptr_t;

// CUresult, those that are used.
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_PTX = 218,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    LAUNCH_TIMEOUT = 702,
    CONTEXT_IS_DESTROYED = 709,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

constexpr size_t PAGE = 4096;
constexpr size_t DEFAULT_SHARED = 48 << 10;
constexpr u8 POISON = 0xFF;  // NaN in every float format, -1 in the integers

// ---- control.cpp ----
extern std::recursive_mutex lock;
extern CudasimStats stats;  // of the kernel that runs
extern bool checked;
extern bool defer_work;
extern u64 seed;
u64 random_bits();
// A finding; `pc` is turned into file and line when the report is read. Of one kind at one place only the first few.
void report(const void* pc, const char* format, ...) __attribute__((format(printf, 2, 3)));
// "; at function file:line" of an instruction, or "".
std::string position(const void* pc);
void keep_stats(const char* kernel);
int attribute(int which);
// Counts the call; the code of an injected fault, or 0.
int enter(const char* function);

// ---- contexts (context.cpp) ----
struct Stream;
struct Context {
    int device;
    bool primary = false, alive = true;
    int retains = 0, failed = 0;  // failed: the error that every later call returns
    Stream* null = nullptr;
};
extern bool initialised;
extern std::set<Context*> contexts;
Context* current();
Context* primary(int device);
int device_count();
// The error of a call that needs a current context that works; 0 where there is one.
int need_context(bool even_failed = false);

// ---- memory.cpp: each allocation ends at an inaccessible page, and is closed to the host except while the device works ----
struct Shadow;
struct Allocation {
    uptr base, low, high;
    size_t size;
    bool live;
    Context* context;
    Shadow* shadow;  // checked build
};
int allocate(uptr* out, size_t size, Context*);
int release(uptr base);
void release_all(Context*);
Allocation* find_allocation(uptr address);
Allocation* allocation_of(uptr address, size_t bytes);  // all of it alive; else null
bool is_arena(uptr address);
bool is_pinned(uptr address, size_t bytes);
void check_canaries(const char* when);
constexpr size_t TOTAL_MEMORY = 4ull << 30;
extern u64 live_bytes;
u64 live_allocations();
// While one lives, the context's memory can be touched.
class Open {
   public:
    explicit Open(Context*);
    ~Open();

   private:
    Context* context_;
};

// ---- fibers.cpp ----
struct Fiber {
    void* stack_pointer;
    u8* stack;
    int number;
};
enum class Space : u8 { global, shared };
enum class Kind : u8 { read, write, atomic };
struct Access {
    const void* pc;
    uptr address;
    u32 size;
    u32 met;  // how often the whole warp has met before
    Kind kind;
    Space space;
};
struct AsyncCopy {
    void* to;
    const void* from;
    int bytes, group;
};
struct Thread {
    uint3 index;
    int number, lane;
    u32 warp_epoch;  // __syncwarps since the last barrier
    u32 met;         // barriers and collectives of the whole warp so far
    bool ended;
    Fiber* fiber;
    Where at;
    const char* waits_in;
    int async_groups;
    std::vector<AsyncCopy> async;
    std::vector<Access> log;
};
extern Thread* running;  // null outside launches
extern std::vector<Thread> threads;
extern u32 block_number;
extern bool fenced;  // this launch has called __threadfence
extern u32 epoch, block_epoch, launch_epoch;  // one more at each barrier, block and launch
extern const char* kernel_name;
extern pthread_t runner;
bool on_stack(uptr address);
bool in_stack_guard(uptr address);
// Runs every thread of a block; the error that ended it, or 0.
int run_block(Call entry, void** arguments);
// Ends the launch from inside a kernel thread (also from a signal handler that interrupted one).
[[noreturn]] void end_launch(int code);
void forget_fibers();

// ---- launch.cpp ----
struct Entry {  // a kernel of a library
    std::string name;
    std::vector<u32> sizes, alignments;
    int max_threads;
    Call call;
    const Library* library;
    size_t static_shared = 0;  // the most seen
};
std::map<std::string, Entry>& entries();
void load_libraries();
const Library* library_of(const void* address);
struct Geometry {
    dim3 grid, block;
    u32 dynamic_shared;
    int max_dynamic_shared;
};
int run_kernel(Context*, Entry&, const Geometry&, void** arguments);
void check_timeout();
// The block's shared arrays.
struct SharedArray {
    const void* id;
    const char* name;
    uptr begin;
    size_t size;
};
extern std::vector<SharedArray> shared_arrays;
constexpr size_t STATIC_SHARED_ROOM = 128 << 10, DYNAMIC_SHARED_ROOM = 228 << 10;
extern u8* static_shared;        // STATIC_SHARED_ROOM bytes
extern u8* dynamic_shared_room;  // DYNAMIC_SHARED_ROOM bytes, then an inaccessible page
extern u32 dynamic_shared_size;

// ---- check.cpp: loads and stores of kernels built with -fsanitize=thread ----
void on_access(uptr address, u32 size, Kind, const void* pc);
Shadow* new_shadow(size_t bytes);
void delete_shadow(Shadow*, size_t bytes);
void mark_initialised(uptr address, size_t bytes);
void copy_initialised(uptr to, uptr from, size_t bytes);
// ---- traffic.cpp ----
void count_traffic();  // of the block that has ended

// ---- streams.cpp ----
using Work = std::function<int()>;
struct Graph {
    std::vector<Work> work;
    bool spoilt = false;
    Stream* origin = nullptr;
};
struct Stream {
    Context* context = nullptr;
    std::deque<Work> queue;
    u64 queued = 0, done = 0;
    Graph* capture = nullptr;
    int mode = 0;  // of the capture: 0 global, 1 thread-local, 2 relaxed
    pthread_t capturer{};
    bool blocking = true;
    std::map<Stream*, u64> knows;  // in a capture: how many of each stream's operations come before its next one
    u64 captured = 0;
};
Stream* new_stream(Context*, bool blocking);
void delete_stream(Stream*);
Stream* find_stream(void* handle);  // null: no such stream in the current context
int enqueue(Stream*, Work);
int drain(Stream*);
int drain_context(Context*);
void drop_streams(Context*);
// For a call that is illegal while a capture is under way: the capture is spoilt, and true returned.
bool forbidden_in_capture(const char* function);
struct StreamCounts {
    u64 streams, events, graphs, graph_execs;
};
StreamCounts stream_counts();
// ---- module.cpp, copies.cpp ----
u64 module_count();
void drop_modules(Context*);
u64 host_allocation_count();

}  // namespace cudasim

// Every function of the driver API begins with one of these.
#define ENTER                                               \
    std::lock_guard<std::recursive_mutex> guard_(lock);     \
    if (int fault_ = enter(__func__)) return fault_;
#define NEED_INIT \
    ENTER if (!initialised) return NOT_INITIALIZED;
#define NEED_CONTEXT                                 \
    ENTER if (int e_ = need_context()) return e_;
#define NEED_STREAM(handle)                                                     \
    NEED_CONTEXT                                                                \
    Stream* s = find_stream(handle);                                            \
    if (!s) {                                                                   \
        report(nullptr, "%s: no such stream in the current context", __func__); \
        return INVALID_HANDLE;                                                  \
    }
#define NOT_IN_CAPTURE \
    if (forbidden_in_capture(__func__)) return CAPTURE_UNSUPPORTED;
