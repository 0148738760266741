/* The simulated driver as a C program sees it: fills four floats on the device and reads them back. */
#include "control.h"

#include <stdio.h>

int cuInit(unsigned flags);
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(uint64_t *p, size_t bytes);
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes);
int cuModuleLoadData(void **module, const void *image);
int cuModuleGetFunction(void **function, void *module, const char *name);
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments,
                   void **extra);

int main(void) {
    static const unsigned image[4] = {0xBA55ED50u, 0, 0, 0};
    void *context, *module, *fill, *arguments[3];
    uint64_t p;
    float value = 7, out[4] = {0, 0, 0, 0};
    int n = 4, failed = 0;
    char report[1000];
    CudasimStats stats;
    failed += cuInit(0) + cuDevicePrimaryCtxRetain(&context, 0) + cuCtxSetCurrent(context) + cuMemAlloc_v2(&p, sizeof out);
    failed += cuModuleLoadData(&module, image) + cuModuleGetFunction(&fill, module, "fill");
    arguments[0] = &p, arguments[1] = &value, arguments[2] = &n;
    failed += cuLaunchKernel(fill, 1, 1, 1, 4, 1, 1, 0, NULL, arguments, NULL) + cuMemcpyDtoH_v2(out, p, sizeof out);
    if (failed) return 1;
    cudasim_stats("fill", &stats);
    cudasim_report(report, sizeof report, 1);
    printf("%g %g %g %g; %d launch; report: \"%s\"\n", out[0], out[1], out[2], out[3], (int)stats.launches, report);
    return 0;
}
