/* Rejections: what every one of them has to say, and which statuses were seen.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_REJECT_H
#define SPLITKV_TEST_REJECT_H

#include <splitkv/splitkv.h>

#include <stdbool.h>

/* An error struct full of a pattern, to see what is written. */
splitkv_error reject_error(void);

/* Checks that a call was refused with `want`, and that the error names status, field, value and a
 * sentence with the field and (where it is not 0) the value in it. Remembers `want` as seen. */
bool reject_is(splitkv_status got, const splitkv_error *error, splitkv_status want,
               const char *field, int64_t value, const char *file, int line);
#define REJECT(got, error, want, field, value)                                                     \
  reject_is((got), (error), (want), (field), (value), __FILE__, __LINE__)

bool reject_seen(splitkv_status status);

/* A problem and a batch that are fine. */
splitkv_problem reject_good_problem(void);
splitkv_batch reject_good_batch(void); /* two requests of 40 and 3 tokens */

/* The parts of the test, by what they call. */
void reject_problems(void);
void reject_batches(void);
void reject_limits(void);
void reject_plan_queries(void);
void reject_allocators(void);
void reject_runs(void);
void reject_tables(void);
void reject_merges(void);
void reject_threads(void);
void reject_ascend(void);
void reject_appends(void);

#endif
