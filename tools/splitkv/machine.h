/* What the operating system says about this machine.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_MACHINE_H
#define SPLITKV_TOOL_MACHINE_H

#include <stddef.h>
#include <stdint.h>

/* The CPU's name, "unknown CPU" where the system does not say. A static buffer. */
const char *machine_cpu_name(void);
/* CPUs this process may run on, >= 1. */
int64_t machine_n_cpus(void);
/* CPU time per time that the control group allows, in CPUs; 0 where it sets no limit. */
double machine_cpu_quota(void);
/* Threads to use when nobody says: CPUs, or fewer where a quota allows fewer. */
int64_t machine_default_threads(void);
/* Bytes of memory that are free for a new process, SIZE_MAX where unknown. */
size_t machine_available_bytes(void);
/* Bytes of the largest CPU cache, 0 where unknown. */
size_t machine_cache_bytes(void);
/* Bytes that no cache holds together by a wide margin: 256 MB, or twice the largest cache. */
size_t machine_cold_bytes(void);
/* size_bytes of memory, to be given to free(); NULL when it is short. Large blocks lie in huge
 * pages where the system has them, as NumPy's do, unless machine_use_small_pages was called before.
 */
void *machine_allocate(size_t size_bytes);
void machine_use_small_pages(void);
/* Seconds on a clock that only moves forward. */
double machine_seconds(void);
/* Seconds of CPU time that this process has used, all threads together. */
double machine_cpu_seconds(void);

#endif
