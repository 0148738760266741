// CUDA's built-in vector types, with the alignment that CUDA gives them, and their make_ functions.
#pragma once
struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
#define CUDASIM_VECTOR2(name, T)                       \
    struct alignas(2 * sizeof(T)) name {               \
        T x, y;                                        \
    };                                                 \
    inline name make_##name(T x, T y) { return {x, y}; }
// Four of 8 bytes are 16-aligned: no access is wider.
#define CUDASIM_VECTOR4(name, T)                                        \
    struct alignas(sizeof(T) >= 4 ? 16 : 4 * sizeof(T)) name {          \
        T x, y, z, w;                                                   \
    };                                                                  \
    inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDASIM_VECTOR2(char2, signed char)
CUDASIM_VECTOR2(uchar2, unsigned char)
CUDASIM_VECTOR2(short2, short)
CUDASIM_VECTOR2(ushort2, unsigned short)
CUDASIM_VECTOR2(int2, int)
CUDASIM_VECTOR2(uint2, unsigned)
CUDASIM_VECTOR2(float2, float)
CUDASIM_VECTOR2(double2, double)
CUDASIM_VECTOR2(longlong2, long long)
CUDASIM_VECTOR2(ulonglong2, unsigned long long)
CUDASIM_VECTOR4(char4, signed char)
CUDASIM_VECTOR4(uchar4, unsigned char)
CUDASIM_VECTOR4(short4, short)
CUDASIM_VECTOR4(ushort4, unsigned short)
CUDASIM_VECTOR4(int4, int)
CUDASIM_VECTOR4(uint4, unsigned)
CUDASIM_VECTOR4(float4, float)
CUDASIM_VECTOR4(double4, double)
CUDASIM_VECTOR4(longlong4, long long)
#undef CUDASIM_VECTOR2
#undef CUDASIM_VECTOR4
struct float3 {
    float x, y, z;
};
struct int3 {
    int x, y, z;
};
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
