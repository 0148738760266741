// Streams, events, captures and graphs. Work is queued, and runs when something waits for it: what is missing in the order of streams shows.
#include "internal.h"

namespace cudasim {
struct Event {
    Context* context;
    Stream* stream = nullptr;
    u64 sequence = 0;
    Graph* capture = nullptr;       // recorded in this capture
    std::map<Stream*, u64> knows;   // what came before it there
};
namespace {
std::set<Stream*> streams;  // the null streams too
std::set<Event*> events;
std::set<Graph*> graphs, graph_execs, captures;
thread_local int exchanged_mode;  // cuThreadExchangeStreamCaptureMode

// The first `count` operations ever queued on the stream are done after this.
int run_until(Stream* s, u64 count) {
    while (s->done < count && !s->queue.empty()) {
        Work work = std::move(s->queue.front());
        s->queue.pop_front();
        s->done++;
        if (s->context->failed) continue;
        if (int e = work()) s->context->failed = e;
    }
    return s->context->failed;
}

void leave_capture(Graph* g) {
    for (Stream* s : streams)
        if (s->capture == g) {
            s->capture = nullptr;
            s->knows.clear();
            s->captured = 0;
        }
    for (Event* e : events)
        if (e->capture == g) e->capture = nullptr, e->stream = nullptr;
    captures.erase(g);
}
}  // namespace

StreamCounts stream_counts() {
    u64 own = 0;
    for (Stream* s : streams) own += s != s->context->null;
    return {own, events.size(), graphs.size(), graph_execs.size()};
}

Stream* new_stream(Context* c, bool blocking) {
    Stream* s = new Stream;
    s->context = c;
    s->blocking = blocking;
    streams.insert(s);
    return s;
}
void delete_stream(Stream* s) {
    if (s->capture) {
        Graph* g = s->capture;
        leave_capture(g);
        delete g;
    }
    for (Event* e : events)
        if (e->stream == s) e->stream = nullptr;
    streams.erase(s);
    delete s;
}
void drop_streams(Context* c) {
    std::vector<Stream*> gone;
    for (Stream* s : streams)
        if (s->context == c) gone.push_back(s);
    for (Stream* s : gone) delete_stream(s);
    c->null = nullptr;
    std::vector<Event*> recorders;
    for (Event* e : events)
        if (e->context == c) recorders.push_back(e);
    for (Event* e : recorders) {
        events.erase(e);
        delete e;
    }
}

// 0, CU_STREAM_LEGACY and CU_STREAM_PER_THREAD are the context's one null stream.
Stream* find_stream(void* handle) {
    if (uptr(handle) <= 2) return current()->null;
    Stream* s = static_cast<Stream*>(handle);
    return streams.count(s) && s->context == current() ? s : nullptr;
}

int drain(Stream* s) { return run_until(s, s->queued); }
int drain_context(Context* c) {
    std::vector<Stream*> all(streams.begin(), streams.end());
    for (Stream* s : all)
        if (s->context == c && !s->capture) drain(s);
    return c->failed;
}

int enqueue(Stream* s, Work work) {
    if (s->capture) {
        if (s->capture->spoilt) return CAPTURE_INVALIDATED;
        s->capture->work.push_back(std::move(work));
        s->captured++;
        return SUCCESS;
    }
    Context* c = s->context;
    if (s == c->null) {
        // The null stream waits for every blocking stream; one that captures cannot be waited for.
        for (Stream* o : streams)
            if (o->context == c && o->blocking && o->capture && o->mode != 2) {
                o->capture->spoilt = true;
                report(nullptr, "work on the null stream while a blocking stream is being captured");
                return CAPTURE_IMPLICIT;
            }
        for (Stream* o : std::vector<Stream*>(streams.begin(), streams.end()))
            if (o->context == c && o->blocking && o != s && !o->capture) drain(o);
    } else if (s->blocking) {
        drain(c->null);
    }
    s->queue.push_back(std::move(work));
    s->queued++;
    return defer_work ? int(SUCCESS) : drain(s);
}

bool forbidden_in_capture(const char* function) {
    bool hit = false;
    for (Stream* s : streams) {
        if (!s->capture || exchanged_mode == 2) continue;
        // Global: forbidden to every thread. Thread-local: to the capturing one.
        if (s->mode == 0 ? exchanged_mode == 0 || pthread_equal(s->capturer, pthread_self()) : s->mode == 1 && pthread_equal(s->capturer, pthread_self())) {
            s->capture->spoilt = true;
            hit = true;
        }
    }
    if (hit) report(nullptr, "%s called during stream capture", function);
    return hit;
}
}  // namespace cudasim

using namespace cudasim;

API int cuStreamCreate(Stream** out, u32 flags) {
    NEED_CONTEXT
    *out = new_stream(current(), !(flags & 1));
    return SUCCESS;
}
API int cuStreamCreateWithPriority(Stream** out, u32 flags, int) {
    NEED_CONTEXT
    *out = new_stream(current(), !(flags & 1));
    return SUCCESS;
}
API int cuStreamDestroy_v2(void* handle) {
    NEED_STREAM(handle)
    if (s == s->context->null) return INVALID_HANDLE;
    drain(s);
    delete_stream(s);
    return SUCCESS;
}
API int cuStreamGetCtx(void* handle, Context** out) {
    NEED_INIT
    if (uptr(handle) <= 2) {
        *out = current();
        return *out ? SUCCESS : INVALID_CONTEXT;
    }
    if (!streams.count(static_cast<Stream*>(handle))) return INVALID_HANDLE;
    *out = static_cast<Stream*>(handle)->context;
    return SUCCESS;
}
API int cuStreamGetFlags(void* handle, u32* flags) {
    NEED_STREAM(handle)
    *flags = s->blocking ? 0 : 1;
    return SUCCESS;
}
API int cuStreamGetPriority(void* handle, int* priority) {
    NEED_STREAM(handle)
    *priority = 0;
    return SUCCESS;
}
API int cuStreamSynchronize(void* handle) {
    NEED_STREAM(handle)
    if (s->capture) {
        s->capture->spoilt = true;
        report(nullptr, "cuStreamSynchronize of a stream that is being captured");
        return CAPTURE_UNSUPPORTED;
    }
    NOT_IN_CAPTURE
    if (s == s->context->null) return drain_context(s->context);
    return drain(s);
}
// Each query lets one operation run, so that a loop of them ends.
API int cuStreamQuery(void* handle) {
    NEED_STREAM(handle)
    if (s->capture) {
        s->capture->spoilt = true;
        return CAPTURE_UNSUPPORTED;
    }
    if (s->queue.empty()) return SUCCESS;
    const int e = run_until(s, s->done + 1);
    return e ? e : int(NOT_READY);
}
API int cuStreamWaitEvent(void* handle, Event* e, u32) {
    NEED_STREAM(handle)
    if (!events.count(e)) return INVALID_HANDLE;
    if (e->capture) {
        if (s->capture && s->capture != e->capture) return 902;  // would merge two captures
        if (!s->capture) {
            s->capture = e->capture;
            s->mode = e->stream->mode;
            s->capturer = e->stream->capturer;
        }
        for (auto& [stream, count] : e->knows) s->knows[stream] = std::max(s->knows[stream], count);
        return SUCCESS;
    }
    if (s->capture) {
        s->capture->spoilt = true;
        report(nullptr, "cuStreamWaitEvent: a captured stream waits for an event that was recorded outside the capture");
        return 905;  // isolation
    }
    if (!e->stream) return SUCCESS;
    Stream* other = e->stream;
    const u64 count = e->sequence;
    return enqueue(s, [=] { return streams.count(other) ? run_until(other, count) : int(SUCCESS); });
}
API int cuLaunchHostFunc(void* handle, void (*function)(void*), void* data) {
    NEED_STREAM(handle)
    return enqueue(s, [=] {
        function(data);
        return int(SUCCESS);
    });
}

API int cuEventCreate(Event** out, u32) {
    NEED_CONTEXT
    *out = new Event;
    (*out)->context = current();
    events.insert(*out);
    return SUCCESS;
}
API int cuEventDestroy_v2(Event* e) {
    NEED_CONTEXT
    if (!events.erase(e)) return INVALID_HANDLE;
    delete e;
    return SUCCESS;
}
static int record(Event* e, Stream* s) {
    if (!events.count(e) || e->context != s->context) return INVALID_HANDLE;
    e->stream = s;
    e->sequence = s->queued;
    e->capture = s->capture;
    e->knows = s->knows;
    if (s->capture) e->knows[s] = s->captured;
    return SUCCESS;
}
API int cuEventRecord(Event* e, void* handle) {
    NEED_STREAM(handle)
    return record(e, s);
}
API int cuEventRecordWithFlags(Event* e, void* handle, u32) {
    NEED_STREAM(handle)
    return record(e, s);
}
API int cuEventSynchronize(Event* e) {
    NEED_CONTEXT
    if (!events.count(e)) return INVALID_HANDLE;
    if (e->capture) {
        e->capture->spoilt = true;
        return CAPTURED_EVENT;
    }
    NOT_IN_CAPTURE
    return e->stream ? run_until(e->stream, e->sequence) : int(SUCCESS);
}
API int cuEventQuery(Event* e) {
    NEED_CONTEXT
    if (!events.count(e)) return INVALID_HANDLE;
    if (e->capture) {
        e->capture->spoilt = true;
        return CAPTURED_EVENT;
    }
    NOT_IN_CAPTURE
    if (!e->stream || e->stream->done >= e->sequence) return SUCCESS;
    const int error = run_until(e->stream, e->stream->done + 1);
    return error ? error : int(NOT_READY);
}
// Time is not simulated: a thousandth of a millisecond an operation.
API int cuEventElapsedTime(float* milliseconds, Event* from, Event* to) {
    NEED_CONTEXT
    if (!events.count(from) || !events.count(to)) return INVALID_HANDLE;
    *milliseconds = 1e-3f * (1 + (to->sequence > from->sequence ? float(to->sequence - from->sequence) : 0.f));
    return SUCCESS;
}

API int cuThreadExchangeStreamCaptureMode(int* mode) {
    NEED_INIT
    std::swap(*mode, exchanged_mode);
    return SUCCESS;
}
API int cuStreamBeginCapture_v2(void* handle, int mode) {
    NEED_STREAM(handle)
    if (s == s->context->null) return CAPTURE_UNSUPPORTED;
    if (s->capture || mode < 0 || mode > 2) return INVALID_VALUE;
    s->capture = new Graph;
    s->capture->origin = s;
    captures.insert(s->capture);
    s->mode = mode;
    s->capturer = pthread_self();
    return SUCCESS;
}
API int cuStreamIsCapturing(void* handle, int* status) {
    NEED_STREAM(handle)
    *status = !s->capture ? 0 : s->capture->spoilt ? 2 : 1;
    return SUCCESS;
}
API int cuStreamGetCaptureInfo_v2(void* handle, int* status, u64* id, Graph** graph, void*** dependencies, size_t* count) {
    NEED_STREAM(handle)
    *status = !s->capture ? 0 : s->capture->spoilt ? 2 : 1;
    if (id) *id = u64(uptr(s->capture));
    if (graph) *graph = s->capture;
    if (dependencies) *dependencies = nullptr;
    if (count) *count = 0;
    return SUCCESS;
}
API int cuStreamEndCapture(void* handle, Graph** out) {
    NEED_STREAM(handle)
    *out = nullptr;
    Graph* g = s->capture;
    if (!g) return INVALID_VALUE;
    if (g->origin != s) return CAPTURE_UNMATCHED;
    if (s->mode != 2 && !pthread_equal(s->capturer, pthread_self())) return CAPTURE_WRONG_THREAD;
    bool joined = true;
    for (Stream* other : streams)
        if (other != s && other->capture == g && s->knows[other] < other->captured) joined = false;
    const bool spoilt = g->spoilt;
    leave_capture(g);
    if (spoilt || !joined) {
        delete g;
        return spoilt ? CAPTURE_INVALIDATED : CAPTURE_UNJOINED;
    }
    graphs.insert(g);
    *out = g;
    return SUCCESS;
}
static int instantiate(Graph** out, Graph* g) {
    if (!graphs.count(g)) return INVALID_VALUE;
    *out = new Graph(*g);
    graph_execs.insert(*out);
    return SUCCESS;
}
API int cuGraphInstantiateWithFlags(Graph** out, Graph* g, u64) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    return instantiate(out, g);
}
API int cuGraphInstantiate_v2(Graph** out, Graph* g, void** node, char*, size_t) {
    NEED_CONTEXT
    NOT_IN_CAPTURE
    if (node) *node = nullptr;
    return instantiate(out, g);
}
API int cuGraphUpload(Graph* g, void* handle) {
    NEED_STREAM(handle)
    return graph_execs.count(g) ? SUCCESS : INVALID_VALUE;
}
API int cuGraphLaunch(Graph* g, void* handle) {
    NEED_STREAM(handle)
    if (!graph_execs.count(g)) return INVALID_VALUE;
    for (const Work& work : g->work)
        if (int e = enqueue(s, work)) return e;
    return SUCCESS;
}
// How many nodes there are; they have no handles here.
API int cuGraphGetNodes(Graph* g, void** nodes, size_t* count) {
    NEED_INIT
    if (!graphs.count(g)) return INVALID_VALUE;
    if (nodes) std::fill_n(nodes, std::min(*count, g->work.size()), nullptr);
    *count = g->work.size();
    return SUCCESS;
}
API int cuGraphDestroy(Graph* g) {
    NEED_INIT
    if (!graphs.erase(g)) return INVALID_VALUE;
    delete g;
    return SUCCESS;
}
API int cuGraphExecDestroy(Graph* g) {
    NEED_INIT
    if (!graph_execs.erase(g)) return INVALID_VALUE;
    delete g;
    return SUCCESS;
}
