/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>

enum { MAX_PRINTED = 20 };

static long n_checks;
static int n_failures;

bool check_that(bool condition, const char *file, int line, const char *text, const char *format,
                ...) {
  ++n_checks;
  if (condition) return true;
  if (++n_failures > MAX_PRINTED) return false;
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "%s:%d: FAILED: %s  ", file, line, text);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  if (n_failures == MAX_PRINTED) fprintf(stderr, "further failures are only counted\n");
  return false;
}

int check_failures(void) {
  return n_failures;
}

bool check_prints(void) {
  return n_failures <= MAX_PRINTED;
}

int check_report(const char *test_name) {
  printf("%s: %ld checks, %d failed\n", test_name, n_checks, n_failures);
  return n_failures > 0 || n_checks == 0 ? 1 : 0;
}
