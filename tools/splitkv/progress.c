/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_shown(void) {
  static int answer = -1;
  if (answer < 0) {
    const char *terminal = getenv("TERM");
    answer = isatty(STDERR_FILENO) && (!terminal || strcmp(terminal, "dumb") != 0);
  }
  return answer;
}

void progress_show(size_t index, size_t n, const char *name, const char *what) {
  if (is_shown()) {
    fprintf(stderr, "\r\033[K[%zu/%zu] %.48s: %.20s", index, n, name, what);
    fflush(stderr);
  }
}

void progress_clear(void) {
  if (is_shown()) {
    fputs("\r\033[K", stderr);
    fflush(stderr);
  }
}
