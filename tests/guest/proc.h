/* What the kernel says about this process. */
#ifndef PROC_H
#define PROC_H
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

/* Entries of a folder of /proc/self: "task" (threads), "fd" (the listing's own not counted). */
static inline int entries(const char *path) {
    DIR *folder = opendir(path);
    int count = -2;
    if (!folder) return -1;
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
}
static inline int threads_here(void) { return entries("/proc/self/task"); }
static inline int files_here(void) { return entries("/proc/self/fd") - 1; }

/* Threads end a moment after they are joined, in /proc. */
static inline int threads_settle(int wanted) {
    for (int wait = 0; wait < 200 && threads_here() != wanted; wait++) usleep(1000);
    return threads_here();
}

/* KiB of address space (0) or of memory (1). */
static inline long statm(int which) {
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &size, &resident) != 2) size = resident = -1;
    if (file) fclose(file);
    return (which ? resident : size) * (sysconf(_SC_PAGESIZE) / 1024);
}
#endif
