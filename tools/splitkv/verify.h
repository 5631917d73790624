/* A case's outputs against the oracle.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_VERIFY_H
#define SPLITKV_TOOL_VERIFY_H

#include "case.h"

typedef struct oracle {
  double *memory; /* all arrays of the result */
  struct ref_result *result;
} oracle;

typedef struct verdict {
  int pass;
  double max_abs_err, max_ulp_err, lse_err; /* largest of all rows */
  double worst;                             /* largest error / bound; <= 1 passes */
  int64_t worst_row;                        /* query row * hq + head, -1 without rows */
  char reason[160];                         /* why it failed, "" if it passed */
} verdict;

/* Computes what the case's rows should be. Returns TOOL_OK, or the status of the error line it
 * printed. */
int oracle_compute(oracle *o, const tool_case *c, const char *name, const splitkv_pool *pool);
void oracle_free(oracle *o);

/* Compares out and lse as they stand, and the red zones around everything that was written. */
verdict oracle_compare(const oracle *o, const tool_case *c);

/* Compares outputs of another library, f32 numbers [rows, hq, dv] that are rounded to the case's
 * own type first. *relative_l2: the norm of all errors over that of what is right. No lse. */
verdict oracle_compare_peer(const oracle *o, const tool_case *c, const float *out,
                            double *relative_l2);

/* Runs that must be refused with nothing touched, a workspace that is larger than the bound: fills
 * `reason` and returns 0 when the memory contract is broken, else 1. Poisons the outputs. */
int verify_memory_contract(tool_case *c, const splitkv_pool *pool, char *reason, size_t capacity);

#endif
