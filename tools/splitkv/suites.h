/* Named lists of problems.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_SUITES_H
#define SPLITKV_TOOL_SUITES_H

#include <stddef.h>

/* Which commands a case is for. */
enum {
  SUITE_CHECK = 1,
  SUITE_BENCH = 2,
  SUITE_BOTH = 3,
  SUITE_ASCEND_CHECK = 4,
  SUITE_ASCEND_BENCH = 8,
  SUITE_ASCEND = 12,
  SUITE_ALL = 15
};

typedef struct suite_case {
  const char *name;    /* unique in the suite, no blanks */
  const char *problem; /* words of the problem grammar */
  unsigned uses;
} suite_case;

typedef struct suite {
  const char *name;
  const char *summary;
  const suite_case *cases;
  size_t n_cases;
} suite;

extern const suite suites[];
extern const size_t n_suites;

/* NULL where there is none of that name. */
const suite *suite_find(const char *name);

/* Does it have a case for any of these uses? */
int suite_has(const suite *s, unsigned uses);

#endif
