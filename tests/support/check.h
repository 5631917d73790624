/* Checks that count, print where and why they failed, and let the test go on.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Only the main thread of a test may check. */
#ifndef SPLITKV_TEST_CHECK_H
#define SPLITKV_TEST_CHECK_H

#include <stdbool.h>

/* Each is true when the condition holds, so that a test can stop early: if (!CHECK(p)) return; */
#define CHECK(condition) check_that((condition), __FILE__, __LINE__, #condition, "%s", "")
/* The same with a printf message. */
#define CHECK_MSG(condition, ...)                                                                  \
  check_that((condition), __FILE__, __LINE__, #condition, __VA_ARGS__)

#if defined(__GNUC__)
__attribute__((format(printf, 5, 6)))
#endif
bool check_that(bool condition, const char *file, int line, const char *text, const char *format,
                ...);

/* Failures so far. */
int check_failures(void);

/* Whether failures are still printed, and not only counted. */
bool check_prints(void);

/* Prints the totals; the exit status of the test: 0 all good, 1 something failed or nothing was
 * checked. */
int check_report(const char *test_name);

#endif
