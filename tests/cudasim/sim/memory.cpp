// Device memory. An allocation's end (to 256 bytes, CUDA's alignment) lies at an inaccessible page; addresses are never used twice; the rest of its
// first page and of its last 256 bytes hold a pattern that is looked at after every launch and when it is freed. New memory is poisoned: NaNs, -1.
#include "internal.h"

#include <sys/mman.h>

namespace cudasim {
u64 live_bytes;

namespace {
constexpr size_t ARENA = 64ull << 30;  // addresses, not memory
u8* arena;
size_t arena_used;
std::deque<Allocation> allocations;  // the freed ones too: what is said of a use after free
std::vector<u32> page_owner;         // index into allocations; an allocation's guard page is its own
std::set<Allocation*> live;

int open_depth;
Context* open_context;

void protect(Allocation& a, int protection) { mprotect(reinterpret_cast<void*>(a.low), a.high - a.low, protection); }

void look_at_canaries(Allocation& a, const char* when) {
    for (uptr p = a.low; p < a.high; p++) {
        if (p == a.base) p += a.size;
        if (p < a.high && *reinterpret_cast<u8*>(p) != POISON) {
            report(nullptr, "%s: a byte beside an allocation of %zu bytes was written, at offset %td", when, a.size, ptrdiff_t(p - a.base));
            memset(reinterpret_cast<void*>(a.low), POISON, a.base - a.low);
            memset(reinterpret_cast<void*>(a.base + a.size), POISON, a.high - a.base - a.size);
            return;
        }
    }
}
}  // namespace

u64 live_allocations() { return live.size(); }

int allocate(uptr* out, size_t size, Context* context) {
    if (!size) return INVALID_VALUE;
    if (!arena) {
        void* p = mmap(nullptr, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return OUT_OF_MEMORY;
        arena = static_cast<u8*>(p);
    }
    if (size > TOTAL_MEMORY) return OUT_OF_MEMORY;
    const size_t padded = (size + 255) & ~size_t(255), bytes = (padded + PAGE - 1) & ~(PAGE - 1);
    if (live_bytes + size > TOTAL_MEMORY || arena_used + bytes + PAGE > ARENA) return OUT_OF_MEMORY;
    u8* low = arena + arena_used;
    mprotect(low, bytes, PROT_READ | PROT_WRITE);
    memset(low, POISON, bytes);
    const uptr base = uptr(low) + bytes - padded;
    allocations.push_back({base, uptr(low), uptr(low) + bytes, size, true, context, checked ? new_shadow(size) : nullptr});
    Allocation& a = allocations.back();
    page_owner.insert(page_owner.end(), bytes / PAGE + 1, u32(allocations.size() - 1));
    arena_used += bytes + PAGE;
    live.insert(&a);
    live_bytes += size;
    if (!(open_depth && open_context == context)) protect(a, PROT_NONE);
    *out = base;
    return SUCCESS;
}

int release(uptr base) {
    Allocation* a = find_allocation(base);
    if (!a || a->base != base || !a->live) return INVALID_VALUE;
    protect(*a, PROT_READ | PROT_WRITE);
    look_at_canaries(*a, "cuMemFree");
    a->live = false;
    live.erase(a);
    live_bytes -= a->size;
    if (a->shadow) delete_shadow(a->shadow, a->size);
    a->shadow = nullptr;
    mmap(reinterpret_cast<void*>(a->low), a->high - a->low, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return SUCCESS;
}

void release_all(Context* context) {
    std::vector<uptr> bases;
    for (Allocation* a : live)
        if (a->context == context) bases.push_back(a->base);
    for (uptr base : bases) release(base);
}

bool is_arena(uptr p) { return arena && p >= uptr(arena) && p < uptr(arena) + ARENA; }

Allocation* find_allocation(uptr p) {
    if (!is_arena(p)) return nullptr;
    const size_t page = (p - uptr(arena)) / PAGE;
    return page < page_owner.size() ? &allocations[page_owner[page]] : nullptr;
}

Allocation* allocation_of(uptr p, size_t bytes) {
    Allocation* a = find_allocation(p);
    return a && a->live && p >= a->base && bytes <= a->size && p - a->base <= a->size - bytes ? a : nullptr;
}

void check_canaries(const char* when) {
    for (Allocation* a : live)
        if (a->context == open_context) look_at_canaries(*a, when);
}

Open::Open(Context* context) : context_(open_context) {
    if (open_depth++ && open_context == context) return;
    open_context = context;
    for (Allocation* a : live)
        if (a->context == context) protect(*a, PROT_READ | PROT_WRITE);
}
Open::~Open() {
    if (--open_depth && open_context == context_) return;
    for (Allocation* a : live)
        if (a->context == open_context) protect(*a, PROT_NONE);
    open_context = context_;
}
}  // namespace cudasim
