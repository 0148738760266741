/* Preloaded: counts every way to get or give memory while `count_alloc_on` is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long taken, given;
static atomic_int on;

long count_alloc_taken(void) { return atomic_load(&taken); }
long count_alloc_given(void) { return atomic_load(&given); }
void count_alloc_set(int value) { atomic_store(&on, value); }

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static void count(void) { if (atomic_load(&on)) atomic_fetch_add(&taken, 1); }

void *malloc(size_t n) { count(); return __libc_malloc(n); }
void *calloc(size_t n, size_t each) { count(); return __libc_calloc(n, each); }
void *realloc(void *p, size_t n) { count(); return __libc_realloc(p, n); }
void *memalign(size_t a, size_t n) { count(); return __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { count(); return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
    count();
    *p = __libc_memalign(a, n);
    return *p ? 0 : ENOMEM;
}
void free(void *p) {
    if (p && atomic_load(&on)) atomic_fetch_add(&given, 1);
    __libc_free(p);
}
void *mmap(void *a, size_t n, int prot, int flags, int fd, off_t offset) {
    count();
    return (void *)syscall(SYS_mmap, a, n, prot, flags, fd, offset);
}
