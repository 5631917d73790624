/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* madvise */
#include "machine.h"

#include <splitkv/threads.h>

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* The value of the first line "key...: value" of a /proc text file, or 0. */
static int read_field(const char *path, const char *key, char *value, size_t capacity) {
  FILE *file = fopen(path, "r");
  if (!file) {
    return 0;
  }
  char line[4096];
  int found = 0;
  while (!found && fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    if (!colon || strncmp(line, key, strlen(key)) != 0) {
      continue;
    }
    const char *start = colon + 1 + strspn(colon + 1, " \t");
    snprintf(value, capacity, "%.*s", (int)strcspn(start, "\n"), start);
    found = 1;
  }
  fclose(file);
  return found;
}

static int read_first_line(const char *path, char *line, size_t capacity) {
  FILE *file = fopen(path, "r");
  if (!file) {
    return 0;
  }
  int ok = fgets(line, (int)capacity, file) != NULL;
  fclose(file);
  if (ok) {
    line[strcspn(line, "\n")] = '\0';
  }
  return ok;
}

const char *machine_cpu_name(void) {
  static char name[128];
  static const char *const keys[] = {"model name", "Model", "Hardware"};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0] && !name[0]; i++) {
    read_field("/proc/cpuinfo", keys[i], name, sizeof name);
  }
  if (!name[0]) {
    snprintf(name, sizeof name, "unknown CPU");
  }
  return name;
}

int64_t machine_n_cpus(void) {
  return splitkv_threads_cpus();
}

double machine_cpu_quota(void) {
  const double quota = splitkv_threads_quota();
  return isfinite(quota) ? quota : 0;
}

int64_t machine_default_threads(void) {
  int64_t n = machine_n_cpus();
  double quota = machine_cpu_quota();
  if (quota > 0 && quota < (double)n) {
    n = (int64_t)quota + (quota > (double)(int64_t)quota);
  }
  return n;
}

size_t machine_available_bytes(void) {
  char value[64];
  if (!read_field("/proc/meminfo", "MemAvailable:", value, sizeof value)) {
    return SIZE_MAX;
  }
  return (size_t)strtoull(value, NULL, 10) * 1024;
}

size_t machine_cache_bytes(void) {
  size_t largest = 0;
  for (int level = 0; level < 8; level++) {
    char path[96], line[64];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", level);
    if (!read_first_line(path, line, sizeof line)) {
      break;
    }
    char *unit = NULL;
    size_t size = (size_t)strtoull(line, &unit, 10);
    size *= *unit == 'K' ? 1024 : *unit == 'M' ? 1024 * 1024 : 1;
    largest = size > largest ? size : largest;
  }
  return largest;
}

size_t machine_cold_bytes(void) {
  size_t twice_cache = 2 * machine_cache_bytes(), least = (size_t)256 << 20;
  return twice_cache > least ? twice_cache : least;
}

static double read_clock(clockid_t clock) {
  struct timespec now = {0};
  clock_gettime(clock, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double machine_seconds(void) {
  return read_clock(CLOCK_MONOTONIC);
}

double machine_cpu_seconds(void) {
  return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

/* ── memory ─────────────────────────────────────────────────────────────────────────────────── */

static int has_small_pages;

void machine_use_small_pages(void) {
  has_small_pages = 1;
  setenv("SPLITKV_SMALL_PAGES", "1", 1); /* for the peers' processes */
}

void *machine_allocate(size_t size_bytes) {
  const size_t huge = (size_t)2 << 20;
  if (has_small_pages || size_bytes < 2 * huge || size_bytes > SIZE_MAX - huge) {
    return malloc(size_bytes);
  }
  void *memory = aligned_alloc(huge, (size_bytes + huge - 1) / huge * huge);
#ifdef MADV_HUGEPAGE
  if (memory) {
    (void)madvise(memory, size_bytes, MADV_HUGEPAGE); /* a wish: ordinary pages will do */
  }
#endif
  return memory;
}
