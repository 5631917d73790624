/* How many CPUs this process may use: the public functions stand in splitkv/threads.h.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPL_CPUS_H
#define SPL_CPUS_H

/* What splitkv_threads_quota says, of given places: `list` is a file like /proc/self/cgroup,
 * `mounts` a folder like /sys/fs/cgroup. */
double spl_quota_at(const char *list, const char *mounts);

#endif
