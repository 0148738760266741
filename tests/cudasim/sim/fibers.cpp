// The threads of a block as fibers on the calling host thread: their schedule, barriers, warp collectives and atomics.
// Blocks run one after another. A thread runs until it waits; then the next runnable one goes on.
#include "internal.h"

#include <sys/mman.h>

// Saves the caller's registers on its stack, the stack pointer in *save, and goes on where `to` was saved. x86-64 System V. It jumps rather than
// returns: the processor's stack of return addresses would be wrong anyway.
extern "C" void cudasim_switch(void** save, void* to);
asm(R"(
.text
.globl cudasim_switch
.hidden cudasim_switch
.type cudasim_switch, @function
cudasim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rdx
  jmpq *%rdx
.size cudasim_switch, .-cudasim_switch
)");

namespace cudasim {
Here here;
unsigned char* dynamic_shared;
Thread* running;
std::vector<Thread> threads;
u32 block_number, epoch, block_epoch, launch_epoch;
bool fenced;
const char* kernel_name = "";
pthread_t runner;

namespace {
constexpr size_t STACK = 64 << 10, FIBERS = 1100;
constexpr int MAX_THREADS = 1024;
u8* stacks;
std::deque<Fiber> fibers;
std::vector<Fiber*> idle;
void* host_stack_pointer;
Call entry;
void** entry_arguments;
int ended_with;  // the error that ended the launch

// A collective under way in a warp: of the lanes in `mask`.
struct Meeting {
    u32 mask = 0, arrived = 0, left = 0;
    bool done = false, used = false;
    u64 value[32];
    Thread* who[32];
    const char* operation;
    Where at;
};
// At most 32 groups of lanes are under way in a warp, and a few being left.
constexpr int MEETINGS = 36;
Meeting meetings[MAX_THREADS / 32][MEETINGS];
Meeting* latest[MAX_THREADS / 32];

struct Runnable {
    Thread* of[MAX_THREADS];
    size_t head, count;
    void clear() { head = count = 0; }
    void add(Thread* t) { of[(head + count++) % MAX_THREADS] = t; }
    // The i-th oldest.
    Thread* take(size_t i) {
        if (i == count - 1) return of[(head + --count) % MAX_THREADS];
        std::swap(of[(head + i) % MAX_THREADS], of[head]);
        Thread* t = of[head];
        head = (head + 1) % MAX_THREADS;
        count--;
        return t;
    }
} runnable;
size_t started, ended;
bool newest_first;
std::vector<Thread*> at_barrier;
u32 barriers_passed;
int votes[2];  // of the barrier that was last passed, and of the one that fills
Vote barrier_vote;

void fiber_main();

void prepare(Fiber& f) {
    // Staggered, so that stacks do not share cache sets. Six registers, the address to go on at, and a 0 where a caller's address would be.
    u64* top = reinterpret_cast<u64*>(f.stack + STACK - PAGE + f.number % 60 * 64);
    *--top = 0;
    *--top = reinterpret_cast<u64>(fiber_main);
    for (int i = 0; i < 6; i++) *--top = 0;
    f.stack_pointer = top;
}

Fiber* idle_fiber() {
    if (!idle.empty()) {
        Fiber* f = idle.back();
        idle.pop_back();
        return f;
    }
    if (!stacks) {
        stacks = static_cast<u8*>(mmap(nullptr, STACK * FIBERS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (stacks == MAP_FAILED) abort();
        for (size_t i = 0; i < FIBERS; i++) mprotect(stacks + i * STACK, PAGE, PROT_NONE);
    }
    fibers.push_back({nullptr, stacks + STACK * fibers.size(), int(fibers.size())});
    prepare(fibers.back());
    return &fibers.back();
}

void become(Thread* t) {
    running = t;
    here.thread = t->index;
    here.lane = t->lane;
}

void switch_to(void** save, Fiber* f) {
    stats.switches++;
    cudasim_switch(save, f->stack_pointer);
}

// The running thread waits, or has ended: goes on with another, on that one's fiber.
void next(Fiber* self, bool has_ended) {
    const size_t ready = runnable.count;
    const bool fresh = started < threads.size();
    if (!ready && !fresh) {
        if (ended == threads.size()) {
            idle.push_back(self);
            cudasim_switch(&self->stack_pointer, host_stack_pointer);
            return;
        }
        size_t waiting = 0;
        Thread* first = nullptr;
        for (Thread& t : threads)
            if (!t.ended && !waiting++) first = &t;
        report(nullptr, "%s: deadlock: %zu threads of block %u wait for others that never come, thread %d among them in %s (%s:%d)", kernel_name,
               waiting, block_number, first->number, first->waits_in, first->at.file, first->at.line);
        end_launch(LAUNCH_FAILED);
    }
    Thread* t;
    if (fresh && (!ready || (seed && !newest_first && random_bits() % (ready + 1) == 0))) {
        t = &threads[started++];
        become(t);
        if (has_ended) {
            t->fiber = self;  // its stack is free: the new thread takes it over
            return;
        }
        t->fiber = idle_fiber();
    } else {
        // Newest first, so that one warp runs far ahead of the others: with a uniform choice a missing barrier was not seen.
        t = runnable.take(!seed ? 0 : newest_first && random_bits() % 32 ? ready - 1 : random_bits() % ready);
        become(t);
        if (has_ended) idle.push_back(self);
        if (t->fiber == self) return;
    }
    switch_to(&self->stack_pointer, t->fiber);
}

void pass_barrier() {
    epoch++;
    barriers_passed++;
    stats.barriers++;
    for (Thread* t : at_barrier) {
        t->warp_epoch = 0;
        runnable.add(t);
    }
    at_barrier.clear();
}

// Threads that have ended hold no barrier up on hardware, though CUDA forbids it.
void look_at_barrier() {
    if (at_barrier.empty() || at_barrier.size() + ended < threads.size()) return;
    if (ended)
        report(nullptr, "%s: divergent __syncthreads: %zu threads of block %u wait at %s:%d, and %zu have ended", kernel_name, at_barrier.size(),
               block_number, at_barrier[0]->at.file, at_barrier[0]->at.line, ended);
    pass_barrier();
}

void fiber_main() {
    for (;;) {
        Thread* t = running;
        entry(entry_arguments);
        t->ended = true;
        ended++;
        if (!t->async.empty())
            report(nullptr, "%s: block %u thread %d ended with asynchronous copies that it never waited for", kernel_name, block_number, t->number);
        look_at_barrier();
        next(t->fiber, true);
    }
}

bool same_place(Where a, Where b) { return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file)); }
}  // namespace

bool on_stack(uptr p) { return p >= uptr(stacks) && p < uptr(stacks) + STACK * FIBERS; }
bool in_stack_guard(uptr p) { return stacks && on_stack(p) && (p - uptr(stacks)) % STACK < PAGE; }

int run_block(Call call, void** arguments) {
    entry = call;
    entry_arguments = arguments;
    block_epoch = ++epoch;
    started = ended = 0;
    barriers_passed = 0;
    newest_first = seed && random_bits() % 2;
    runnable.clear();
    at_barrier.clear();
    ended_with = SUCCESS;
    Thread* t = &threads[started++];
    become(t);
    t->fiber = idle_fiber();
    switch_to(&host_stack_pointer, t->fiber);
    running = nullptr;
    return ended_with;
}

void end_launch(int code) {
    ended_with = code;
    void* nobody;
    cudasim_switch(&nobody, host_stack_pointer);
    abort();  // nobody comes back
}

// After a launch that was ended: what its threads left on their stacks is gone.
void forget_fibers() {
    idle.clear();
    for (Fiber& f : fibers) {
        prepare(f);
        idle.push_back(&f);
    }
    for (auto& warp : meetings)
        for (Meeting& m : warp) m = {};
    for (Meeting*& m : latest) m = nullptr;
}

int barrier(Vote vote, int predicate, Where at) {
    Thread* t = running;
    check_timeout();
    t->at = at;
    t->waits_in = "__syncthreads";
    const u32 mine = barriers_passed & 1;
    if (at_barrier.empty()) {
        barrier_vote = vote;
        votes[mine] = vote == Vote::all;
    } else if (Where other = at_barrier[0]->at; !same_place(other, at) || vote != barrier_vote) {
        report(nullptr, "%s: divergent __syncthreads in block %u: thread %d at %s:%d, thread %d at %s:%d", kernel_name, block_number,
               at_barrier[0]->number, other.file, other.line, t->number, at.file, at.line);
    }
    if (vote == Vote::any) votes[mine] |= predicate != 0;
    if (vote == Vote::all) votes[mine] &= predicate != 0;
    if (vote == Vote::count) votes[mine] += predicate != 0;
    at_barrier.push_back(t);
    look_at_barrier();
    next(t->fiber, false);
    t->met++;
    return votes[mine];  // not touched before every thread is here again at a later barrier
}

Met meet(unsigned mask, uint64_t value, bool orders, const char* operation, Where at) {
    Thread* t = running;
    check_timeout();
    const int warp = t->number / 32, first = warp * 32, lanes = int(std::min<size_t>(32, threads.size() - first));
    if (lanes < 32) mask &= (1u << lanes) - 1;
    if (!(mask >> t->lane & 1)) {
        report(nullptr, "%s: %s at %s:%d: lane %d is not in the mask %#x that it gives", kernel_name, operation, at.file, at.line, t->lane, mask);
        end_launch(LAUNCH_FAILED);
    }
    Meeting* m = nullptr;
    if (latest[warp] && latest[warp]->mask == mask && !latest[warp]->done) {
        m = latest[warp];
    } else {
        Meeting* unused = nullptr;
        for (Meeting& x : meetings[warp]) {
            if (x.mask == mask && !x.done) {
                m = &x;
                break;
            }
            if (!x.mask) {
                unused = &x;
                if (!x.used) break;
            }
        }
        if (!m) {
            if (!unused) {
                report(nullptr, "%s: %s at %s:%d: too many groups of lanes under way in a warp", kernel_name, operation, at.file, at.line);
                end_launch(LAUNCH_FAILED);
            }
            m = unused;
            m->used = true;
        }
    }
    latest[warp] = m;
    if (!m->arrived) {
        m->mask = mask;
        m->at = at;
        m->operation = operation;
    } else if (!same_place(m->at, at) || (m->operation != operation && strcmp(m->operation, operation))) {
        report(nullptr, "%s: lanes of a warp at different collectives: %s at %s:%d and, lane %d, %s at %s:%d", kernel_name, m->operation,
               m->at.file, m->at.line, t->lane, operation, at.file, at.line);
    }
    m->value[t->lane] = value;
    m->who[t->lane] = t;
    m->arrived |= 1u << t->lane;
    if (m->arrived == mask) {
        m->done = true;
        stats.collectives++;
        for (u32 rest = mask; rest; rest &= rest - 1) {
            Thread* other = m->who[__builtin_ctz(rest)];
            if (orders) other->warp_epoch++;
            if (other != t) runnable.add(other);
        }
        if (seed) {
            runnable.add(t);
            next(t->fiber, false);
        }
    } else {
        t->at = at;
        t->waits_in = operation;
        next(t->fiber, false);
    }
    m->left |= 1u << t->lane;
    if (mask == (lanes < 32 ? (1u << lanes) - 1 : ~0u)) t->met++;
    const Met met{m->value, mask};
    // The values stay until the slot is taken again, which no lane of this group can do before it meets once more.
    if (m->left == mask) {
        m->mask = m->arrived = m->left = 0;
        m->done = false;
    }
    return met;
}

unsigned active_lanes() {
    const size_t first = running->number / 32 * 32;
    unsigned lanes = 0;
    for (size_t i = first; i < std::min(first + 32, threads.size()); i++)
        if (!threads[i].ended) lanes |= 1u << (i - first);
    return lanes;
}

void fence() { fenced = true; }

uint64_t atomic(void* p, int size, Atomic operation, uint64_t value, uint64_t expected, Where at) {
    check_timeout();
    if (uptr(p) % size) {
        report(nullptr, "%s: misaligned atomic of %d bytes at %p (%s:%d): block %u thread %d", kernel_name, size, p, at.file, at.line, block_number,
               running->number);
        end_launch(MISALIGNED_ADDRESS);
    }
    on_access(uptr(p), size, Kind::atomic, __builtin_return_address(0));
    stats.atomics++;
    u64 old = 0;
    memcpy(&old, p, size);
    const auto wide = [size](u64 v) { return size == 4 ? i64(int32_t(v)) : i64(v); };
    u64 now = value;
    switch (operation) {
        case Atomic::add: now = old + value; break;
        case Atomic::add_float: now = to_bits(from_bits<float>(old) + from_bits<float>(value)); break;
        case Atomic::min_signed: now = wide(old) < wide(value) ? old : value; break;
        case Atomic::max_signed: now = wide(old) > wide(value) ? old : value; break;
        case Atomic::min_unsigned: now = std::min(old, value); break;
        case Atomic::max_unsigned: now = std::max(old, value); break;
        case Atomic::bit_and: now = old & value; break;
        case Atomic::bit_or: now = old | value; break;
        case Atomic::bit_xor: now = old ^ value; break;
        case Atomic::exchange: break;
        case Atomic::compare: now = old == expected ? value : old; break;
    }
    memcpy(p, &now, size);
    // Other orders of atomics.
    if (seed && random_bits() % 4 == 0) {
        Thread* t = running;
        runnable.add(t);
        next(t->fiber, false);
    }
    return old;
}

void async_copy(void* to, const void* from, int bytes, Where at) {
    if (uptr(to) % bytes || uptr(from) % bytes) {
        report(nullptr, "%s: misaligned asynchronous copy of %d bytes at %s:%d: block %u thread %d", kernel_name, bytes, at.file, at.line,
               block_number, running->number);
        end_launch(MISALIGNED_ADDRESS);
    }
    running->async.push_back({to, from, bytes, running->async_groups});
}
void async_commit() { running->async_groups++; }
void async_wait(int groups_left) {
    Thread* t = running;
    const void* pc = __builtin_return_address(0);
    size_t done = 0;
    for (; done < t->async.size() && t->async[done].group < t->async_groups - groups_left; done++) {
        const AsyncCopy& copy = t->async[done];
        on_access(uptr(copy.from), copy.bytes, Kind::read, pc);
        on_access(uptr(copy.to), copy.bytes, Kind::write, pc);
        memcpy(copy.to, copy.from, copy.bytes);
    }
    t->async.erase(t->async.begin(), t->async.begin() + done);
}

void trap(Where at) {
    report(nullptr, "%s: __trap at %s:%d: block %u thread %d", kernel_name, at.file, at.line, block_number, running->number);
    end_launch(LAUNCH_FAILED);
}
}  // namespace cudasim
