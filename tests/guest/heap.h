/* The program's own malloc family (the library's calls come here): counts the blocks that are out, and can stop a thread at its next one. */
#ifndef HEAP_H
#define HEAP_H
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

static atomic_long heap_live, heap_taken;
/* Called before a block is taken. */
static void heap_gate(void);

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static void *heap_count(void *p) {
    if (p) atomic_fetch_add(&heap_live, 1), atomic_fetch_add(&heap_taken, 1);
    return p;
}

void *malloc(size_t n) { heap_gate(); return heap_count(__libc_malloc(n)); }
void *calloc(size_t n, size_t each) { heap_gate(); return heap_count(__libc_calloc(n, each)); }
void *memalign(size_t a, size_t n) { heap_gate(); return heap_count(__libc_memalign(a, n)); }
void *aligned_alloc(size_t a, size_t n) { return memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) { *p = memalign(a, n); return *p ? 0 : ENOMEM; }
void free(void *p) {
    if (p) atomic_fetch_sub(&heap_live, 1);
    __libc_free(p);
}
void *realloc(void *p, size_t n) {
    heap_gate();
    if (!p) return heap_count(__libc_realloc(p, n));
    return __libc_realloc(p, n);
}
#endif
