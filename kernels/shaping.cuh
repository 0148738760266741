// One rollout in the hands of a block, in shared memory: what every stage of pass two reads.
#ifndef PASSRL_SHAPING_CUH
#define PASSRL_SHAPING_CUH
#include "expand.cuh"
#include "group_stats.cuh"
#include "kl.cuh"
#include "returns.cuh"
#include "terms.cuh"

struct Shaping : Work {
    // Lists of the rollout: values a chunk in f (with the process part in d where that alone is divided), results in d, returns in v; lines of a scan
    // that runs over tokens out of scope too. f64, as long as the extent.
    f64 *f, *d, *v, *lines;
    u32* last;
    // The values of a chunk each, where they stayed in place (STATE_IN_PLACE); else 0.
    const f32* scores;
    // Is it in the sets?
    bool counts;
};

INLINE Shaping make_shaping(const Args& args, i64 i, const Extent& e, const Rollout& kept) {
    Shaping to;
    to.i = i;
    to.e = e;
    to.scope = kept_scope(args, i, e, kept);
    to.kept = kept;
    to.f = list_of<f64>(args.work.f, e);
    to.d = list_of<f64>(args.work.d, e);
    to.v = list_of<f64>(args.work.v, e);
    to.lines = list_of<f64>(args.work.lines, e);
    to.last = list_of<u32>(args.work.last, e);
    to.scores = 0;
    to.counts = counts_in_stats(kept);
    return to;
}

// Chunks of the rollout over its tokens.
INLINE Lines chunk_lines(const Shaping& w) { return Lines{(w.kept.state & STATE_EVERY_TOKEN) != 0, w.last, (i64)w.kept.chunks}; }

// Is the divergence from the reference taken at `place` (the tokens' rewards, their advantages)?
INLINE bool takes_kl(const Args& args, i32 place) { return is_given(args.batch.logp_reference) && plan_of(args).kl_place == place; }
// What it takes from token t.
INLINE f64 kl_taken(const Args& args, const Shaping& w, i64 t) { return plan_of(args).kl_coef * (f64)list_of<f32>(args.work.kl, w.e)[t]; }

#endif
