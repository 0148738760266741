// The order of a partials buffer's phases, by what each has been given: as src/check/phases.rs, which looks where the buffer is the host's.
#ifndef PASSRL_PHASES_CUH
#define PASSRL_PHASES_CUH
#include "args.cuh"
#include "device.cuh"

// Added to the count of phase 1 (there are two at least) where some phase was not in its order: it is then not that of phase 0.
constexpr i64 OUT_OF_ORDER = 1ll << 40;

// Before a call's share of a phase is added: counts it in the buffer. Before the buffer is applied: the kernels that follow write nothing where the phases have not been
// given as much each. One thread.
extern "C" __global__ void passrl_phases(const __grid_constant__ PhaseNote note) {
    auto given = [&](i32 phase) -> i64& { return ((i64*)note.given)[note.words[phase]]; };
    if (note.phase < note.phases) {
        if (note.units == 0) return;
        bool in_order = note.phase == 0 || given(note.phase - 1) != 0;
        for (i32 later = note.phase + 1; later < note.phases; later++) in_order = in_order && given(later) == 0;
        given(note.phase) += note.units;
        if (!in_order) given(1) += OUT_OF_ORDER;
    } else {
        bool complete = note.units == 0 || given(0) != 0;
        for (i32 phase = 1; phase < note.phases; phase++) complete = complete && given(phase) == given(0);
        if (!complete) ((Counts*)note.counts)->disorder = 1;
    }
}

#endif
