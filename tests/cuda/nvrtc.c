/* Stands in for NVRTC where a test is not about the compiler: what it "compiles" is PTX text that names the source's kernels, which the simulated driver
 * takes (it runs the same sources, compiled for the host). Environment variables of the tests make it fail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *text;
    int failed;
} Program;

int nvrtcVersion(int *major, int *minor) {
    *major = 12;
    *minor = 99;
    return 0;
}
const char *nvrtcGetErrorString(int error) { return error == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
int nvrtcGetNumSupportedArchs(int *count) {
    *count = 2;
    return 0;
}
int nvrtcGetSupportedArchs(int *list) {
    list[0] = 75;
    list[1] = 80;
    return 0;
}
int nvrtcCreateProgram(void **program, const char *source, const char *name, int headers, const char *const *texts, const char *const *names) {
    (void)name, (void)texts, (void)names;
    if (headers) return 3;
    Program *p = calloc(1, sizeof *p);
    size_t room = strlen(source) + 4096, at;
    p->text = malloc(room);
    at = (size_t)sprintf(p->text, "//\n.version 8.0\n.target sm_80\n");
    for (const char *kernel = strstr(source, "__global__"); kernel; kernel = strstr(kernel + 1, "__global__")) {
        const char *begin = strstr(kernel, "passrl_");
        if (begin) at += (size_t)sprintf(p->text + at, ".visible .entry %.*s()\n", (int)strcspn(begin, "( \n"), begin);
    }
    *program = p;
    return 0;
}
int nvrtcCompileProgram(void *program, int count, const char *const *options) {
    const char *wanted[] = {"--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "-device-int128"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        int found = 0;
        for (int j = 0; j < count; j++) found |= !strcmp(options[j], wanted[i]);
        if (!found) return 5;
    }
    int split = 0;
    for (int j = 0; j < count; j++) split |= !strcmp(options[j], "--split-compile=0");
    /* Asked for where it is known; one that does not know it refuses it, as it does any option. */
    if (split == (getenv("PASSRL_TEST_NVRTC_OLD") != NULL)) return 5;
    ((Program *)program)->failed = getenv("PASSRL_TEST_NVRTC_FAILS") != NULL;
    return ((Program *)program)->failed ? 6 : 0;
}
static const char *log_of(void *program) { return ((Program *)program)->failed ? "numerics.cuh(7): error: this one is made to fail\n1 error\n" : ""; }
int nvrtcGetProgramLogSize(void *program, size_t *bytes) {
    *bytes = strlen(log_of(program)) + 1;
    return 0;
}
int nvrtcGetProgramLog(void *program, char *to) {
    strcpy(to, log_of(program));
    return 0;
}
int nvrtcGetPTXSize(void *program, size_t *bytes) {
    *bytes = strlen(((Program *)program)->text) + 1;
    return 0;
}
int nvrtcGetPTX(void *program, char *to) {
    strcpy(to, ((Program *)program)->text);
    return 0;
}
int nvrtcGetCUBINSize(void *program, size_t *bytes) { return nvrtcGetPTXSize(program, bytes); }
int nvrtcGetCUBIN(void *program, char *to) { return nvrtcGetPTX(program, to); }
int nvrtcDestroyProgram(void **program) {
    free(((Program *)*program)->text);
    free(*program);
    *program = NULL;
    return 0;
}
