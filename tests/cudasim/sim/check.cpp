// The checked build: g++ -fsanitize=thread calls the __tsan_ functions, defined here, at every load and store of a kernel. They hold it to the bounds
// of the array (to the byte), to memory that something has written, and to an order between threads; and keep it for the traffic counts.
#include "internal.h"

#include <sys/mman.h>

extern "C" char __ehdr_start[] __attribute__((visibility("hidden"))), _end[] __attribute__((visibility("hidden")));

namespace cudasim {
// Who touched a byte last. `epoch` says in which launch and block, after how many barriers; it is 0 where nobody has.
struct Touch {
    u32 epoch;
    u32 thread : 10, atomic : 1, warp_epoch : 21;
    u32 pc;  // from the library's beginning
};
struct Touches {
    Touch write, read, other_read;
};

struct Shadow {
    Touches* touches;
    u8* initialised;
};

namespace {
void* reserve(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) abort();
    return p;
}

const Library* library;  // of the running kernel: the last looked up
u32 offset_in_library(const void* pc) {
    if (!library || pc < library->begin || pc >= library->end) library = library_of(pc);
    return library ? u32(static_cast<const char*>(pc) - library->begin) : 0;
}

bool race(const Touch& before, const Touch& now) {
    if (before.epoch < launch_epoch || (before.atomic && now.atomic)) return false;
    // Blocks that pass data on do it with __threadfence and a flag; such a protocol is not followed further.
    if (before.epoch < block_epoch) return !fenced;
    if (before.thread == now.thread || before.epoch != now.epoch) return false;
    return before.thread / 32 != now.thread / 32 || before.warp_epoch == now.warp_epoch;
}

struct Place {
    const char* space;
    const char* name;
    uptr offset;
    size_t size;
};

void tell_race(const char* what, const Place& place, const Touch& before, const void* pc) {
    const void* earlier = library && before.pc ? library->begin + before.pc : nullptr;
    const bool other_block = before.epoch < block_epoch;
    report(pc, "%s: %s race on %s%s byte %zu of %zu: thread %u of %s, then thread %d of block %u", kernel_name, what, place.space, place.name,
           size_t(place.offset), place.size, unsigned(before.thread), other_block ? "another block" : "the same block", running->number, block_number);
    if (earlier) report(earlier, "%s:   the earlier access", kernel_name);
}

[[noreturn]] void out_of_bounds(const char* space, const char* name, Kind kind, u32 size, ptrdiff_t offset, size_t whole, const void* pc) {
    static const char* const VERBS[] = {"read", "write", "atomic"};
    report(pc, "%s: out of bounds: %s of %u bytes at offset %td of %s%s of %zu bytes: block %u thread %d", kernel_name, VERBS[int(kind)], size, offset, space,
           name, whole, block_number, running->number);
    end_launch(ILLEGAL_ADDRESS);
}

Shadow static_shadow, dynamic_shadow;
}  // namespace

Shadow* new_shadow(size_t bytes) {
    return new Shadow{static_cast<Touches*>(reserve(bytes * sizeof(Touches))), static_cast<u8*>(reserve(bytes))};
}
void delete_shadow(Shadow* shadow, size_t bytes) {
    munmap(shadow->touches, bytes * sizeof(Touches));
    munmap(shadow->initialised, bytes);
    delete shadow;
}
void mark_initialised(uptr p, size_t bytes) {
    if (Allocation* a = find_allocation(p); a && a->shadow) memset(a->shadow->initialised + (p - a->base), 1, bytes);
}
void copy_initialised(uptr to, uptr from, size_t bytes) {
    Allocation *a = find_allocation(to), *b = find_allocation(from);
    if (a && b && a->shadow && b->shadow) memmove(a->shadow->initialised + (to - a->base), b->shadow->initialised + (from - b->base), bytes);
}

void on_access(uptr p, u32 size, Kind kind, const void* pc) {
    if (!checked || !running || on_stack(p)) return;
    // The driver's own: threadIdx and its kin, values of collectives.
    if (p >= uptr(__ehdr_start) && p < uptr(_end)) return;
    Touches* touches;
    u8* initialised = nullptr;
    Place place{"", "", 0, 0};
    Space space = Space::shared;
    if (is_arena(p)) {
        Allocation* a = find_allocation(p);
        if (!a || !a->live || p < a->base || p + size > a->base + a->size || !a->shadow)
            out_of_bounds(!a ? "no" : a->live ? "an" : "a freed", " allocation", kind, size, a ? ptrdiff_t(p - a->base) : 0, a ? a->size : 0, pc);
        space = Space::global;
        place = {"global memory", "", p - a->base, a->size};
        touches = a->shadow->touches + place.offset;
        initialised = a->shadow->initialised + place.offset;
    } else if (p >= uptr(static_shared) && p < uptr(static_shared) + STATIC_SHARED_ROOM) {
        const SharedArray *in = nullptr, *before = nullptr;
        for (const SharedArray& s : shared_arrays) {
            if (p >= s.begin) before = &s;
            if (p >= s.begin && p + size <= s.begin + s.size) in = &s;
        }
        if (!in) out_of_bounds("shared ", before ? before->name : "memory", kind, size, before ? ptrdiff_t(p - before->begin) : 0, before ? before->size : 0, pc);
        if (!static_shadow.touches) static_shadow.touches = static_cast<Touches*>(reserve(STATIC_SHARED_ROOM * sizeof(Touches)));
        place = {"shared ", in->name, p - in->begin, in->size};
        touches = static_shadow.touches + (p - uptr(static_shared));
    } else if (p >= uptr(dynamic_shared_room) && p < uptr(dynamic_shared_room) + DYNAMIC_SHARED_ROOM + PAGE) {
        const ptrdiff_t offset = ptrdiff_t(p - uptr(dynamic_shared));
        if (offset < 0 || size_t(offset) + size > dynamic_shared_size) out_of_bounds("dynamic shared", " memory", kind, size, offset, dynamic_shared_size, pc);
        if (!dynamic_shadow.touches) dynamic_shadow.touches = static_cast<Touches*>(reserve(DYNAMIC_SHARED_ROOM * sizeof(Touches)));
        place = {"dynamic shared memory", "", uptr(offset), dynamic_shared_size};
        touches = dynamic_shadow.touches + (p - uptr(dynamic_shared_room));
    } else if (library_of(reinterpret_cast<void*>(p))) {
        if (kind == Kind::read) return;  // a table of the kernels
        report(pc, "%s: a variable of the module is written, which is not simulated: block %u thread %d", kernel_name, block_number, running->number);
        end_launch(NOT_SUPPORTED);
    } else if (is_pinned(p, size)) {
        return;
    } else {
        report(pc, "%s: a host address, %#zx, is touched: block %u thread %d", kernel_name, size_t(p), block_number, running->number);
        end_launch(ILLEGAL_ADDRESS);
    }
    running->log.push_back({pc, p, size, running->met, kind, space});
    const Touch now{epoch, u32(running->number), kind == Kind::atomic, running->warp_epoch & 0x1FFFFF, offset_in_library(pc)};
    bool told = false;  // one finding an access
    for (u32 i = 0; i < size; i++) {
        Touches& t = touches[i];
        // Shared memory is born anew in each block.
        const bool written = initialised ? initialised[i] : t.write.epoch >= block_epoch;
        if (kind != Kind::write && !written && !told) {
            report(pc, "%s: uninitialised %s%s read at byte %zu of %zu: block %u thread %d", kernel_name, place.space, place.name, size_t(place.offset) + i,
                   place.size, block_number, running->number);
            told = true;
        }
        const bool current = space == Space::global || t.write.epoch >= block_epoch;
        const bool current_read = space == Space::global || t.read.epoch >= block_epoch;
        const bool current_other = space == Space::global || t.other_read.epoch >= block_epoch;
        if (!told && current && race(t.write, now)) {
            tell_race(kind == Kind::read ? "write-read" : "write-write", place, t.write, pc);
            told = true;
        }
        if (kind == Kind::read) {
            if (t.read.thread != now.thread || t.read.epoch != now.epoch) t.other_read = t.read;
            t.read = now;
        } else {
            if (!told && ((current_read && race(t.read, now)) || (current_other && race(t.other_read, now)))) {
                tell_race("read-write", place, race(t.read, now) ? t.read : t.other_read, pc);
                told = true;
            }
            t.write = now;
            if (initialised) initialised[i] = 1;
        }
    }
}
}  // namespace cudasim

using namespace cudasim;
#define PC __builtin_return_address(0)
#define HOOKS(n)                                                                            \
    API void __tsan_read##n(void* p) { on_access(uptr(p), n, Kind::read, PC); }             \
    API void __tsan_write##n(void* p) { on_access(uptr(p), n, Kind::write, PC); }           \
    API void __tsan_unaligned_read##n(void* p) { on_access(uptr(p), n, Kind::read, PC); }   \
    API void __tsan_unaligned_write##n(void* p) { on_access(uptr(p), n, Kind::write, PC); } \
    API void __tsan_volatile_read##n(void* p) { on_access(uptr(p), n, Kind::read, PC); }    \
    API void __tsan_volatile_write##n(void* p) { on_access(uptr(p), n, Kind::write, PC); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
API void __tsan_read_range(void* p, size_t n) { on_access(uptr(p), u32(n), Kind::read, PC); }
API void __tsan_write_range(void* p, size_t n) { on_access(uptr(p), u32(n), Kind::write, PC); }
API void __tsan_init() {}
API void __tsan_func_entry(void*) {}
API void __tsan_func_exit() {}
API void __tsan_vptr_update(void*, void*) {}
API void __tsan_vptr_read(void*) {}
