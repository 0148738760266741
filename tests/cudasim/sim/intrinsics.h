// CUDA's integer, conversion and arithmetic intrinsics. Arithmetic is IEEE, nearest even, as `nvcc --fmad=false --ftz=false --prec-div=true
// --prec-sqrt=true` makes it; kernels are compiled here with -ffp-contract=off.
#pragma once

// ---- loads and stores with a cache hint: the hint is not simulated ----
#define CUDASIM_LOAD(name)              \
    template <class T>                  \
    inline T name(const T* p) {         \
        return *p;                      \
    }
CUDASIM_LOAD(__ldg)
CUDASIM_LOAD(__ldca)
CUDASIM_LOAD(__ldcg)
CUDASIM_LOAD(__ldcs)
CUDASIM_LOAD(__ldlu)
CUDASIM_LOAD(__ldcv)
#undef CUDASIM_LOAD
#define CUDASIM_STORE(name)                                     \
    template <class T>                                          \
    inline void name(T* p, std::common_type_t<T> v) {           \
        *p = v;                                                 \
    }
CUDASIM_STORE(__stwb)
CUDASIM_STORE(__stcg)
CUDASIM_STORE(__stcs)
CUDASIM_STORE(__stwt)
#undef CUDASIM_STORE

// ---- integers ----
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __brev(unsigned v) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i);
    return r;
}
inline unsigned long long __brevll(unsigned long long v) { return (unsigned long long)__brev(unsigned(v)) << 32 | __brev(unsigned(v >> 32)); }
inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned by) { return unsigned((((unsigned long long)hi << 32 | lo) << (by & 31)) >> 32); }
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned by) { return unsigned(((unsigned long long)hi << 32 | lo) >> (by & 31)); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    unsigned long long both = (unsigned long long)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = selector >> (4 * i) & 15, byte = unsigned(both >> (8 * (s & 7))) & 255;
        if (s & 8) byte = byte & 128 ? 255 : 0;
        r |= byte << (8 * i);
    }
    return r;
}

// ---- bits of floating point numbers ----
inline int __float_as_int(float v) { return cudasim::from_bits<int>(cudasim::to_bits(v)); }
inline unsigned __float_as_uint(float v) { return unsigned(cudasim::to_bits(v)); }
inline float __int_as_float(int v) { return cudasim::from_bits<float>(cudasim::to_bits(v)); }
inline float __uint_as_float(unsigned v) { return cudasim::from_bits<float>(v); }
inline long long __double_as_longlong(double v) { return (long long)cudasim::to_bits(v); }
inline double __longlong_as_double(long long v) { return cudasim::from_bits<double>((uint64_t)v); }
inline int __double2hiint(double v) { return int(cudasim::to_bits(v) >> 32); }
inline int __double2loint(double v) { return int(unsigned(cudasim::to_bits(v))); }
inline double __hiloint2double(int hi, int lo) { return cudasim::from_bits<double>(uint64_t(unsigned(hi)) << 32 | unsigned(lo)); }

// ---- conversions. To an integer they saturate, as the GPU's do, and a NaN gives 0 in 32 bits and the smallest number in 64 ----
namespace cudasim {
template <class I>
inline I saturate(double v) {
    constexpr bool is_signed = std::is_signed_v<I>;
    constexpr int bits = int(8 * sizeof(I));
    const I low = is_signed ? I(I(1) << (bits - 1)) : I(0), high = I(~low);
    if (v != v) return bits == 32 ? I(0) : I(1ull << 63);
    const double limit = ldexp(1.0, is_signed ? bits - 1 : bits);
    return v >= limit ? high : v < double(low) ? low : I(v);
}
}  // namespace cudasim
#define CUDASIM_TO_INTEGER(from, F, to, I)                                                             \
    inline I __##from##2##to##_rn(F v) { return cudasim::saturate<I>(nearbyint(double(v))); }          \
    inline I __##from##2##to##_rz(F v) { return cudasim::saturate<I>(trunc(double(v))); }              \
    inline I __##from##2##to##_rd(F v) { return cudasim::saturate<I>(floor(double(v))); }              \
    inline I __##from##2##to##_ru(F v) { return cudasim::saturate<I>(ceil(double(v))); }
CUDASIM_TO_INTEGER(double, double, int, int)
CUDASIM_TO_INTEGER(double, double, uint, unsigned)
CUDASIM_TO_INTEGER(double, double, ll, long long)
CUDASIM_TO_INTEGER(double, double, ull, unsigned long long)
CUDASIM_TO_INTEGER(float, float, int, int)
CUDASIM_TO_INTEGER(float, float, uint, unsigned)
CUDASIM_TO_INTEGER(float, float, ll, long long)
CUDASIM_TO_INTEGER(float, float, ull, unsigned long long)
#undef CUDASIM_TO_INTEGER
inline double __int2double_rn(int v) { return double(v); }
inline double __uint2double_rn(unsigned v) { return double(v); }
inline double __ll2double_rn(long long v) { return double(v); }
inline double __ull2double_rn(unsigned long long v) { return double(v); }
inline float __int2float_rn(int v) { return float(v); }
inline float __uint2float_rn(unsigned v) { return float(v); }
inline float __ll2float_rn(long long v) { return float(v); }
inline float __ull2float_rn(unsigned long long v) { return float(v); }
inline float __double2float_rn(double v) { return float(v); }
inline float __double2float_rz(double v) {
    float f = float(v);
    return fabs(double(f)) > fabs(v) ? __uint_as_float(__float_as_uint(f) - 1) : f;
}

// ---- arithmetic ----
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __drcp_rn(double a) { return 1.0 / a; }
inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

#define CUDASIM_MINMAX(T)                                       \
    inline T min(T a, T b) { return b < a ? b : a; }            \
    inline T max(T a, T b) { return a < b ? b : a; }
CUDASIM_MINMAX(int)
CUDASIM_MINMAX(unsigned)
CUDASIM_MINMAX(long)
CUDASIM_MINMAX(unsigned long)
CUDASIM_MINMAX(long long)
CUDASIM_MINMAX(unsigned long long)
#undef CUDASIM_MINMAX
// As CUDA's: a NaN beside a number gives the number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
