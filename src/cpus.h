/* How many CPUs this process may use.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPUS_H
#define SPL_CPUS_H

#include <stdint.h>

/* CPUs that the calling thread may run on; INT64_MAX where that cannot be known. */
int64_t spl_allowed_cpus(void);

/* CPU time per time that the process's control groups grant, rounded up; at least 1, INT64_MAX
 * where there is no limit or none that can be known. */
int64_t spl_quota_cpus(void);

/* The same for given places: `list` is a file like /proc/self/cgroup, `mounts` a folder like
 * /sys/fs/cgroup. */
int64_t spl_quota_cpus_at(const char *list, const char *mounts);

#endif
