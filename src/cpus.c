/* Affinity and quotas, as Linux tells them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity */
#else
#define _POSIX_C_SOURCE 200809L
#endif

#include "cpus.h"

#include <splitkv/threads.h>

#include <math.h>
#include <unistd.h>

static int64_t online_cpus(void) {
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? n : 1;
}

#if defined(__linux__)

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 4096, PATH_BYTES = 1024 };

int64_t splitkv_threads_cpus(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : online_cpus();
}

/* The beginning of a file, as a string; false when it cannot be read. */
static bool read_text(const char *path, char *text, size_t capacity) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const ssize_t n = read(file, text, capacity - 1);
  (void)close(file);
  if (n < 0) return false;
  text[n] = '\0';
  return true;
}

/* `quota` out of `period`; "max" and -1 are no limit. */
static double cpus_of(const char *quota, const char *period) {
  const long long part = strtoll(quota, NULL, 10), all = strtoll(period, NULL, 10);
  return part > 0 && all > 0 ? (double)part / (double)all : INFINITY;
}

/* The limit that one folder states: cpu.max in the unified hierarchy, two files before it. */
static double folder_cpus(const char *folder) {
  char path[PATH_BYTES + 32], quota[64], period[64];
  (void)snprintf(path, sizeof path, "%s/cpu.max", folder);
  if (read_text(path, quota, sizeof quota)) {
    const char *space = strchr(quota, ' ');
    return space == NULL ? INFINITY : cpus_of(quota, space);
  }
  (void)snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
  if (!read_text(path, quota, sizeof quota)) return INFINITY;
  (void)snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
  if (!read_text(path, period, sizeof period)) return INFINITY;
  return cpus_of(quota, period);
}

/* The least limit from `group` up to the mount. A group that is not there, since a container sees
 * its own as the mount, has none. */
static double group_cpus(const char *mount, const char *group) {
  char folder[PATH_BYTES];
  const int n = snprintf(folder, sizeof folder, "%s%s", mount, group);
  if (n < 0 || (size_t)n >= sizeof folder) return INFINITY;
  const size_t mount_length = strlen(mount);
  double least = INFINITY;
  for (;;) {
    const double cpus = folder_cpus(folder);
    if (cpus < least) least = cpus;
    char *slash = strrchr(folder + mount_length, '/');
    if (slash == NULL) return least;
    *slash = '\0';
  }
}

/* Is `word` one of the words of [list, end), which commas part? */
static bool has_word(const char *list, const char *end, const char *word) {
  const size_t length = strlen(word);
  for (const char *at = list; at < end;) {
    const char *comma = memchr(at, ',', (size_t)(end - at));
    const char *stop = comma == NULL ? end : comma;
    if ((size_t)(stop - at) == length && memcmp(at, word, length) == 0) return true;
    at = stop + 1;
  }
  return false;
}

double spl_quota_at(const char *list, const char *mounts) {
  char text[TEXT_BYTES], mount[PATH_BYTES];
  if (!read_text(list, text, sizeof text)) return INFINITY;
  double least = INFINITY;
  for (char *line = text, *next = NULL; line != NULL && *line != '\0'; line = next) {
    next = strchr(line, '\n');
    if (next != NULL) *next++ = '\0';
    const char *first = strchr(line, ':'); /* number:controllers:group */
    const char *second = first == NULL ? NULL : strchr(first + 1, ':');
    if (second == NULL) continue;
    const bool is_unified = second == first + 1;
    if (!is_unified && !has_word(first + 1, second, "cpu")) continue;
    (void)snprintf(mount, sizeof mount, "%s%s", mounts, is_unified ? "" : "/cpu");
    const double cpus = group_cpus(mount, second + 1);
    if (cpus < least) least = cpus;
  }
  return least;
}

double splitkv_threads_quota(void) {
  return spl_quota_at("/proc/self/cgroup", "/sys/fs/cgroup");
}

#else

int64_t splitkv_threads_cpus(void) {
  return online_cpus();
}

double spl_quota_at(const char *list, const char *mounts) {
  (void)list;
  (void)mounts;
  return INFINITY;
}

double splitkv_threads_quota(void) {
  return INFINITY;
}

#endif
