/* The caller's floating-point mode (rounding, flush-to-zero, denormals-are-zero, unmasked exceptions) is kept and changes no bit. */
#include "common.h"
#include <fenv.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
static unsigned mode(void) { return _mm_getcsr() & 0xFFC0u; }
static void set_mode(unsigned bits) { _mm_setcsr((_mm_getcsr() & ~0xFFC0u) | bits); }
enum { FLUSH = 0x8040 };
#elif defined(__aarch64__)
static unsigned mode(void) { unsigned long r; __asm__ volatile("mrs %0, fpcr" : "=r"(r)); return (unsigned)r; }
static void set_mode(unsigned bits) { unsigned long r = bits; __asm__ volatile("msr fpcr, %0" : : "r"(r)); }
enum { FLUSH = 1 << 24 };
#else
static unsigned mode(void) { return 0; }
static void set_mode(unsigned bits) { (void)bits; }
enum { FLUSH = 0 };
#endif

int main(void) {
    const int roundings[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    for (int kind = PRM_CSR; kind <= OPD; kind++) {
        for (int threads = 1; threads <= 3; threads += 2) {
            sample s;
            sample_make(&s, 24, 64, kind == PRM_DENSE, kind);
            /* Values whose differences are subnormal in f32. */
            for (int64_t t = 0; t < s.tokens; t += 5) s.signal[t] *= 1e-40f, s.teacher[t] *= 1e-41f;
            s.config.whiten = PASSRL_WHITEN_TOKENS, s.config.gamma = 0.97;
            passrl_context *context = context_of(threads);
            void *workspace;
            size_t bytes, part;
            passrl_plan *plan = plan_of(context, &s, &workspace, &bytes);
            OK(passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL));
            OK(passrl_partials_size(plan, &part));
            void *buffer = malloc(part);
            float *want = malloc((size_t)s.tokens * 4);
            memcpy(want, s.advantages, (size_t)s.tokens * 4);
            unsigned before = mode();
            for (int r = 0; r < 4; r++) {
                for (int flush = 0; flush < 2; flush++) {
                    CHECK(fesetround(roundings[r]) == 0);
                    set_mode(mode() | (flush ? FLUSH : 0));
                    unsigned mine = mode();
                    memset(s.advantages, 0xA5, (size_t)s.tokens * 4);
                    int status = passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL);
                    int kept = mode() == mine && fegetround() == roundings[r];
                    /* A plan made in this mode has the same tables. */
                    passrl_plan *other = NULL;
                    int made = passrl_plan_create(context, &s.config, &s.limits, NULL, &other);
                    kept = kept && mode() == mine;
                    int same = memcmp(want, s.advantages, (size_t)s.tokens * 4) == 0;
                    memset(s.advantages, 0xA5, (size_t)s.tokens * 4);
                    int again = passrl_partials_init(other, buffer, part);
                    for (int phase = 0; phase < 4; phase++) again |= passrl_partials_add(other, phase, &s.batch, buffer, part, workspace, bytes, NULL);
                    again |= passrl_plan_apply(other, &s.batch, buffer, part, &s.outputs, workspace, bytes, NULL);
                    kept = kept && mode() == mine && fegetround() == roundings[r];
                    int same_again = memcmp(want, s.advantages, (size_t)s.tokens * 4) == 0;
                    set_mode(before);
                    CHECK(fesetround(FE_TONEAREST) == 0);
                    CHECK(status == PASSRL_OK && made == PASSRL_OK && again == PASSRL_OK);
                    CHECK(kept);
                    CHECK(same);
                    CHECK(same_again);
                    passrl_plan_destroy(other);
                }
            }
#if defined(__GLIBC__)
            /* Exceptions that trap in the caller do not trap in here, and still trap afterwards. */
            feclearexcept(FE_ALL_EXCEPT);
            unsigned plain = mode();
            set_mode(plain & ~0x1F80u);
            unsigned trapping = mode();
            int status = passrl_plan_run(plan, &s.batch, &s.outputs, workspace, bytes, NULL);
            int kept = mode() == trapping;
            set_mode(plain);
            CHECK(status == PASSRL_OK && kept && memcmp(want, s.advantages, (size_t)s.tokens * 4) == 0);
#endif
            passrl_plan_destroy(plan);
            passrl_context_destroy(context);
            free(workspace), free(buffer), free(want);
            sample_free(&s);
        }
    }
    return 0;
}
