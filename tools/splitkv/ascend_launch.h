/* What launches of the Ascend kernel and of its model share: memory, the device, the verdict.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_ASCEND_LAUNCH_H
#define SPLITKV_TOOL_ASCEND_LAUNCH_H

#include "ascend_case.h"
#include "options.h"
#include "verify.h"

/* ── memory ─────────────────────────────────────────────────────────────────────────────────── */

/* Everything is zero before and owned after. */
typedef struct ascend_launch {
  splitkv_ascend_memory memory;
  zoned scratch[SPLITKV_ASCEND_N_SCRATCH]; /* where the host has it */
  unsigned char *q;                        /* a copy of Q with room behind it, where it needs one */
} ascend_launch;

/* Scratch of these sizes, without memory; tensors are the caller's. */
void ascend_launch_init(ascend_launch *l, const splitkv_ascend_sizes *sizes);
void ascend_launch_free(ascend_launch *l);

/* Memory for the scratch, of which the part that is touched holds NaN: the kernel needs no zeros.
 * Returns TOOL_OK, or the status of the error line it printed. */
int ascend_launch_allocate(ascend_launch *l, const splitkv_ascend_sizes *touched);

void ascend_launch_tensor(ascend_launch *l, splitkv_ascend_buffer buffer, const void *data,
                          size_t size_bytes);
/* Q, with the room behind its last row that the kernel reads in whole blocks of 16 channels: a copy
 * where the channels of a head are no whole blocks. Returns TOOL_OK, or the status of the error
 * line it printed. */
int ascend_launch_q(ascend_launch *l, const void *data, size_t size_bytes, int64_t head_dim);
/* The tensors of a built case; returns as ascend_launch_q. */
int ascend_launch_case(ascend_launch *l, const tool_case *c);

/* ── device ─────────────────────────────────────────────────────────────────────────────────── */

typedef struct ascend_device_choice {
  const char *kernel_path, *runtime_path; /* runtime_path may be NULL */
  option_number device;
} ascend_device_choice;

#define ASCEND_DEVICE_CHOICE                                                                       \
  {                                                                                                \
    NULL, NULL, {                                                                                  \
      0, INT32_MAX, 0                                                                              \
    }                                                                                              \
  }

/* Returns TOOL_OK, or the status of the error line it printed. */
int ascend_open_device(const ascend_device_choice *choice, splitkv_ascend_device **device);

/* ── verdict ────────────────────────────────────────────────────────────────────────────────── */

/* Largest of all rows. A case passes by our own bound, which is what the kernel's arithmetic can
 * keep to; the pull request's tolerance is wider for small values and may be narrower for large
 * ones, so that it is only told. */
typedef struct ascend_verdict {
  int pass;
  double max_abs_err, max_ulp_err;
  double bound;        /* largest bound of a row, before out is rounded to 16 bits */
  double worst;        /* largest error / bound; <= 1 passes */
  double of_tolerance; /* largest error / tolerance of the pull request; <= 1 is within it */
  char reason[640];    /* why it failed, "" if it passed */
} ascend_verdict;

/* Compares out as it stands with what is right. */
ascend_verdict ascend_compare(const oracle *o, const tool_case *c);

/* oracle_compute and ascend_compare. Returns TOOL_OK, or the status of the error line it printed.
 */
int ascend_judge(const tool_case *c, const char *name, const splitkv_pool *pool, ascend_verdict *v);

/* What the reports of all commands say of a case: what it was, how it was tiled, whether it passed
 * and why not. And its errors, which are there only where out was compared. */
struct cJSON *ascend_json_case(const selected_case *entry, const ascend_tiling *t,
                               const ascend_verdict *v);
void ascend_json_errors(struct cJSON *row, const ascend_verdict *v);

#endif
