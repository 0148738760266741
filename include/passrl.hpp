// passrl for C++17 and later: RAII handles, exceptions and typed views over passrl.h. Header-only; link with libpassrl.
//
//  - Errors: a call that the library refuses (negative status) throws passrl::error with the library's sentence; nothing was written. A positive status is
//    no error: the run is done and has findings in the data (bad groups got advantage 0); it is returned, and passrl::last_error() has the sentence.
//    The noexcept try_... forms return the raw status instead: handles begin as passrl::plan plan(nullptr) and are made by plan.try_create(...).
//    Compiled without exceptions (-fno-exceptions) a call that would throw prints the sentence and aborts: use the try_... forms there.
//  - Ownership: context, plan, workspace and partials own what they hold and are move-only. A moved-from one is empty: using it is refused, never undefined.
//    Views borrow the caller's memory, batches and outputs borrow views: both must live as long as the call.
//  - Threads: one context and one plan may serve many threads at once; a workspace or a partials object serves one call at a time.
//  - Cost: run, try_run, partials::add and apply forward to C: no allocation, no copy. Exceptions allocate, in the failing call only.
//  - What is not wrapped is called as in C: passrl::check(passrl_gae(context.get(), ...)).
//
// ```cpp
// passrl::context context;
// passrl_limits limits = passrl::limits();
// limits.rollouts = R, limits.tokens = N;
// passrl::plan plan(context, passrl::config("pass"), limits);
// passrl::workspace workspace(plan);
// passrl_batch batch = passrl::batch();            // per step: views of the caller's memory
// passrl_view outcome = passrl::view(rewards, R), advantages = passrl::view(result, N);
// batch.num_rollouts = R, batch.group_size = 8, batch.outcome = &outcome;  // ... and the layout, the process signal
// passrl_outputs outputs = passrl::outputs();
// outputs.advantages = &advantages;
// plan.run(batch, outputs, workspace);
// ```

#ifndef PASSRL_HPP
#define PASSRL_HPP

#include "passrl.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace passrl {

// True where the library that was loaded has the ABI that this header was compiled with. Ask once, before anything else.
[[nodiscard]] inline bool abi_matches() noexcept { return passrl_abi_version() == PASSRL_ABI_VERSION; }

// The sentence of this thread's last call that did not return 0, "function: argument, both numbers, the mend"; valid until this thread's next call into
// the library. Never NULL.
[[nodiscard]] inline const char *last_error() noexcept { return passrl_last_error(); }

// A refused or failed call: status() is the negative status, what() the library's sentence.
class error : public std::runtime_error {
public:
    // Of the call that this thread has just made.
    explicit error(passrl_status status) : std::runtime_error(sentence(status)), status_(status) {}
    [[nodiscard]] passrl_status status() const noexcept { return status_; }

private:
    static const char *sentence(passrl_status status) noexcept {
        const char *said = passrl_last_error();
        return *said != '\0' ? said : passrl_status_name(status);
    }
    passrl_status status_;
};

// Throws where a status is negative, returns it otherwise: 0, or positive where the data has findings.
inline passrl_status check(passrl_status status) {
    if (status < 0) {
#if defined(__cpp_exceptions)
        throw error(status);
#else
        std::fprintf(stderr, "passrl: %s\n", error(status).what());
        std::abort();
#endif
    }
    return status;
}

// ---- Structs, filled with their defaults. Change the fields at will.

namespace detail {
template <class T>
T filled(passrl_status (*init)(T *, std::uint32_t)) {
    T target;
    check(init(&target, sizeof target));
    return target;
}
} // namespace detail

[[nodiscard]] inline passrl_batch batch() { return detail::filled(passrl_batch_init); }
[[nodiscard]] inline passrl_outputs outputs() { return detail::filled(passrl_outputs_init); }
[[nodiscard]] inline passrl_limits limits() { return detail::filled(passrl_limits_init); }
[[nodiscard]] inline passrl_report report() { return detail::filled(passrl_report_init); }
[[nodiscard]] inline passrl_collective collective() { return detail::filled(passrl_collective_init); }
[[nodiscard]] inline passrl_context_options context_options() { return detail::filled(passrl_context_options_init); }

// The configuration of a preset: "pass", "grpo_process", ... An unknown name throws, with the nearest ones.
[[nodiscard]] inline passrl_config config(const char *preset = "pass") {
    passrl_config filled;
    check(passrl_config_init_preset(&filled, sizeof filled, preset));
    return filled;
}

// Sets one field by its name, from text: set(config, "k", "0.5"), set(config, "outcome.ddof", "0"). Throws with the configuration untouched.
inline void set(passrl_config &config, const char *key, const char *value) { check(passrl_config_set(&config, key, value)); }

// ---- Views: the caller's memory, borrowed, never copied. Shapes and strides are in elements.

// Data types of a view, for those that no C++ type stands for.
enum class dtype : std::int32_t {
    f64 = PASSRL_F64,
    f32 = PASSRL_F32,
    f16 = PASSRL_F16,
    bf16 = PASSRL_BF16,
    i64 = PASSRL_I64,
    i32 = PASSRL_I32,
    u8 = PASSRL_U8,
    boolean = PASSRL_BOOL
};

namespace detail {
template <class T>
inline constexpr bool is_signed_integer = std::is_integral_v<T> && std::is_signed_v<T> && !std::is_same_v<T, wchar_t>;

template <class T>
constexpr dtype dtype_of() noexcept {
    using U = std::remove_cv_t<T>;
    static_assert(!std::is_volatile_v<T>, "a view is of plain memory");
    if constexpr (std::is_same_v<U, float>) return dtype::f32;
    else if constexpr (std::is_same_v<U, double>) return dtype::f64;
    else if constexpr (std::is_same_v<U, bool>) return dtype::boolean;
    else if constexpr (std::is_same_v<U, std::uint8_t>) return dtype::u8;
    else if constexpr (is_signed_integer<U> && sizeof(U) == 4) return dtype::i32;
    else {
        static_assert(is_signed_integer<U> && sizeof(U) == 8, "no data type for this element: name it, as in view(data, passrl::dtype::bf16, n)");
        return dtype::i64;
    }
}
static_assert(sizeof(bool) == 1 && sizeof(float) == 4 && sizeof(double) == 8, "the library's data types");
} // namespace detail

// n elements of a named type, for bf16 and f16: view(data, passrl::dtype::bf16, n). A view has no const of its own: `const` memory may be an input
// and must not be an output. Memory of a device: set `device_type` and `device_id` afterwards; other strides likewise.
[[nodiscard]] inline passrl_view view(const void *data, dtype type, std::int64_t n) noexcept {
    return passrl_view{const_cast<void *>(data), {n, 1}, {1, 1}, 1, static_cast<std::int32_t>(type), PASSRL_CPU, 0};
}

// Rows by columns of a named type; `row_stride` elements from one row to the next.
[[nodiscard]] inline passrl_view view(const void *data, dtype type, std::int64_t rows, std::int64_t columns, std::int64_t row_stride) noexcept {
    return passrl_view{const_cast<void *>(data), {rows, columns}, {row_stride, 1}, 2, static_cast<std::int32_t>(type), PASSRL_CPU, 0};
}

// n elements. T is float, double, int32_t, int64_t, uint8_t or bool, or const one of these (inputs only).
template <class T>
[[nodiscard]] constexpr passrl_view view(T *data, std::int64_t n) noexcept {
    return passrl_view{const_cast<std::remove_cv_t<T> *>(data), {n, 1}, {1, 1}, 1, static_cast<std::int32_t>(detail::dtype_of<T>()), PASSRL_CPU, 0};
}

// Rows by columns, `row_stride` elements from one row to the next.
template <class T>
[[nodiscard]] constexpr passrl_view view(T *data, std::int64_t rows, std::int64_t columns, std::int64_t row_stride) noexcept {
    constexpr auto type = static_cast<std::int32_t>(detail::dtype_of<T>());
    return passrl_view{const_cast<std::remove_cv_t<T> *>(data), {rows, columns}, {row_stride, 1}, 2, type, PASSRL_CPU, 0};
}

// Rows by columns, compact.
template <class T>
[[nodiscard]] constexpr passrl_view view(T *data, std::int64_t rows, std::int64_t columns) noexcept {
    return view(data, rows, columns, columns);
}

// All elements of contiguous memory: std::vector, std::array, std::span, an array. A temporary is not accepted, as the view would outlive it.
template <class Contiguous, class T = std::remove_pointer_t<decltype(std::data(std::declval<Contiguous &>()))>>
[[nodiscard]] constexpr passrl_view view(Contiguous &elements) noexcept {
    return view(std::data(elements), static_cast<std::int64_t>(std::size(elements)));
}

// ---- Handles

namespace detail {
struct destroy {
    void operator()(passrl_context *handle) const noexcept { passrl_context_destroy(handle); }
    void operator()(passrl_plan *handle) const noexcept { passrl_plan_destroy(handle); }
};

// The text of passrl_context_describe or passrl_plan_describe.
template <class Handle>
std::string text(passrl_status (*describe)(const Handle *, char *, std::size_t, std::size_t *), const Handle *handle) {
    std::size_t needed = 0;
    check(describe(handle, nullptr, 0, &needed));
    std::string said(needed, '\0');
    check(describe(handle, said.data(), said.size(), &needed));
    if (!said.empty()) said.pop_back(); // the terminating zero
    return said;
}

// 64-byte aligned memory, of any content; at least one byte, so that its address is one.
class memory {
public:
    explicit memory(std::size_t size) : data_(::operator new(size == 0 ? 1 : size, alignment)), size_(size) {}
    explicit memory(std::nullptr_t) noexcept : size_(0) {}
    // PASSRL_OK, or PASSRL_ERR_RESOURCE where there is no memory; what was held before goes.
    [[nodiscard]] passrl_status try_allocate(std::size_t size) noexcept {
        data_.reset(::operator new(size == 0 ? 1 : size, alignment, std::nothrow));
        size_ = data_ ? size : 0;
        return data_ ? PASSRL_OK : PASSRL_ERR_RESOURCE;
    }
    memory(memory &&other) noexcept : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
    memory &operator=(memory &&other) noexcept {
        data_ = std::move(other.data_);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }
    [[nodiscard]] void *data() const noexcept { return data_.get(); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

private:
    static constexpr std::align_val_t alignment{64};
    struct release {
        void operator()(void *data) const noexcept { ::operator delete(data, alignment); }
    };
    std::unique_ptr<void, release> data_;
    std::size_t size_;
};
} // namespace detail

class workspace;

// Backend, device and threads. May be used from many threads, and destroyed before the plans that were made of it (they keep what they need).
class context {
public:
    // The CPU with default threads.
    context() { make(nullptr); }
    // From passrl::context_options(), changed; read during the call.
    explicit context(const passrl_context_options &options) { make(&options); }
    // Empty: try_create makes it. `options` may be NULL: the CPU with default threads.
    explicit context(std::nullptr_t) noexcept {}
    [[nodiscard]] passrl_status try_create(const passrl_context_options *options = nullptr) noexcept {
        passrl_context *made = nullptr;
        const passrl_status status = passrl_context_create(options, &made);
        if (status >= 0) handle_.reset(made);
        return status;
    }

    // Backend, threads, instruction set.
    [[nodiscard]] std::string describe() const { return detail::text(passrl_context_describe, get()); }
    // The C handle, still owned by this object; NULL once moved from.
    [[nodiscard]] passrl_context *get() const noexcept { return handle_.get(); }
    [[nodiscard]] explicit operator bool() const noexcept { return handle_ != nullptr; }

private:
    void make(const passrl_context_options *options) { check(try_create(options)); }
    std::unique_ptr<passrl_context, detail::destroy> handle_;
};

// One configuration within limits, immutable. Many threads may run it at once, each with its own workspace and outputs; none may when it is destroyed.
class plan {
public:
    // The arguments are read during the call. Throws where the configuration or the limits are refused. `collective`: the ranks over which groups are
    // spread; its function and `user` live as long as the plan.
    plan(const context &context, const passrl_config &config, const passrl_limits &limits, const passrl_collective *collective = nullptr) {
        check(try_create(context, config, limits, collective));
    }
    // Empty: try_create makes it, with the constructor's arguments.
    explicit plan(std::nullptr_t) noexcept {}
    [[nodiscard]] passrl_status try_create(const context &context, const passrl_config &config, const passrl_limits &limits,
                                           const passrl_collective *collective = nullptr) noexcept {
        passrl_plan *made = nullptr;
        const passrl_status status = passrl_plan_create(context.get(), &config, &limits, collective, &made);
        if (status >= 0) handle_.reset(made);
        return status;
    }

    // Bytes of workspace of a run.
    [[nodiscard]] std::size_t workspace_size() const {
        std::size_t bytes = 0;
        check(passrl_plan_workspace_size(get(), &bytes));
        return bytes;
    }
    // Phases of the statistics, for partials: 2, 2 more where batch whitening follows, others where rollouts come in pieces (passrl_plan_phases).
    [[nodiscard]] std::int32_t phases() const {
        std::int32_t count = 0;
        check(passrl_plan_phases(get(), &count));
        return count;
    }
    // Stages, reductions, bytes.
    [[nodiscard]] std::string describe() const { return detail::text(passrl_plan_describe, get()); }

    // Shapes one batch: reads it, writes the outputs. `memory` is 64-byte aligned, of workspace_size() bytes, and serves one call at a time; `stream` is
    // NULL on the CPU. Returns 0, or a positive status where the data has findings; throws where an argument is refused.
    passrl_status run(const passrl_batch &batch, const passrl_outputs &outputs, void *memory, std::size_t bytes, void *stream = nullptr) const {
        return check(try_run(batch, outputs, memory, bytes, stream));
    }
    inline passrl_status run(const passrl_batch &batch, const passrl_outputs &outputs, workspace &memory, void *stream = nullptr) const;

    // As run, with the raw status.
    [[nodiscard]] passrl_status try_run(const passrl_batch &batch, const passrl_outputs &outputs, void *memory, std::size_t bytes,
                                        void *stream = nullptr) const noexcept {
        return passrl_plan_run(get(), &batch, &outputs, memory, bytes, stream);
    }
    [[nodiscard]] inline passrl_status try_run(const passrl_batch &batch, const passrl_outputs &outputs, workspace &memory, void *stream = nullptr) const noexcept;

    // The C handle, still owned by this object; NULL once moved from. Moving a plan keeps it.
    [[nodiscard]] passrl_plan *get() const noexcept { return handle_.get(); }
    [[nodiscard]] explicit operator bool() const noexcept { return handle_ != nullptr; }

private:
    std::unique_ptr<passrl_plan, detail::destroy> handle_;
};

// Memory of a plan's runs: one call at a time, reused from call to call. A thread has its own.
class workspace : public detail::memory {
public:
    explicit workspace(const plan &plan) : memory(plan.workspace_size()) {}
    explicit workspace(std::size_t bytes) : memory(bytes) {}
    // Empty: try_create makes it.
    explicit workspace(std::nullptr_t) noexcept : memory(nullptr) {}
    [[nodiscard]] passrl_status try_create(const plan &plan) noexcept {
        std::size_t bytes = 0;
        const passrl_status status = passrl_plan_workspace_size(plan.get(), &bytes);
        return status < 0 ? status : try_allocate(bytes);
    }
};

inline passrl_status plan::run(const passrl_batch &batch, const passrl_outputs &outputs, workspace &memory, void *stream) const {
    return run(batch, outputs, memory.data(), memory.size(), stream);
}

inline passrl_status plan::try_run(const passrl_batch &batch, const passrl_outputs &outputs, workspace &memory, void *stream) const noexcept {
    return try_run(batch, outputs, memory.data(), memory.size(), stream);
}

// Statistics of a batch that comes in micro-batches or from several processes. For each phase from 0 to plan.phases() - 1 every micro-batch is added once,
// in any order (their group_index counts over the whole batch); then apply gives each slice the bits of one run on the whole. The plan must outlive
// this object (it may be moved). data() and size() bytes may be copied, saved and sent.
class partials {
public:
    // Owns a buffer of the plan's size, empty.
    explicit partials(const plan &plan) : plan_(nullptr), buffer_(nullptr) { check(try_create(plan)); }
    // Empty: try_create makes it.
    explicit partials(std::nullptr_t) noexcept : plan_(nullptr), buffer_(nullptr) {}
    [[nodiscard]] passrl_status try_create(const plan &plan) noexcept {
        std::size_t bytes = 0;
        passrl_status status = passrl_partials_size(plan.get(), &bytes);
        if (status >= 0) status = buffer_.try_allocate(bytes);
        if (status < 0) return status;
        plan_ = plan.get();
        return passrl_partials_init(plan_, data(), size());
    }

    // Empties the buffer for the next batch.
    void init() { check(passrl_partials_init(plan_, data(), size())); }

    // Adds a micro-batch's share of a phase. Findings are kept and told by apply. One call on this object at a time.
    void add(std::int32_t phase, const passrl_batch &batch, void *memory, std::size_t bytes, void *stream = nullptr) {
        check(try_add(phase, batch, memory, bytes, stream));
    }
    [[nodiscard]] passrl_status try_add(std::int32_t phase, const passrl_batch &batch, void *memory, std::size_t bytes, void *stream = nullptr) noexcept {
        return passrl_partials_add(plan_, phase, &batch, data(), size(), memory, bytes, stream);
    }
    void add(std::int32_t phase, const passrl_batch &batch, workspace &memory, void *stream = nullptr) {
        add(phase, batch, memory.data(), memory.size(), stream);
    }

    // Adds another buffer of an equal plan, both after the same phases.
    void merge(const partials &from) { merge(from.data(), from.size()); }
    void merge(const void *from, std::size_t bytes) { check(try_merge(from, bytes)); }
    [[nodiscard]] passrl_status try_merge(const void *from, std::size_t bytes) noexcept { return passrl_partials_merge(plan_, data(), size(), from, bytes); }

    // The sections that an all-reduce must combine in place after a phase.
    [[nodiscard]] std::vector<passrl_section> layout(std::int32_t phase) const {
        std::size_t count = 0;
        check(passrl_partials_layout(plan_, phase, nullptr, 0, &count));
        std::vector<passrl_section> sections(count);
        check(passrl_partials_layout(plan_, phase, sections.data(), count, &count));
        return sections;
    }

    // Shapes a slice from the complete statistics; returns and throws as plan::run. Several calls may run at once, each with its own workspace and outputs.
    passrl_status apply(const passrl_batch &batch, const passrl_outputs &outputs, void *memory, std::size_t bytes, void *stream = nullptr) const {
        return check(try_apply(batch, outputs, memory, bytes, stream));
    }
    [[nodiscard]] passrl_status try_apply(const passrl_batch &batch, const passrl_outputs &outputs, void *memory, std::size_t bytes,
                                          void *stream = nullptr) const noexcept {
        return passrl_plan_apply(plan_, &batch, data(), size(), &outputs, memory, bytes, stream);
    }
    passrl_status apply(const passrl_batch &batch, const passrl_outputs &outputs, workspace &memory, void *stream = nullptr) const {
        return apply(batch, outputs, memory.data(), memory.size(), stream);
    }

    [[nodiscard]] void *data() const noexcept { return buffer_.data(); }
    [[nodiscard]] std::size_t size() const noexcept { return buffer_.size(); }

private:
    const passrl_plan *plan_;
    detail::memory buffer_;
};

} // namespace passrl

#endif // PASSRL_HPP
