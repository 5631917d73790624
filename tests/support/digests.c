/* SPDX-License-Identifier: Apache-2.0 */
#include "digests.h"

#include "check.h"

#include <inttypes.h>
#include <stdio.h>

static void write_file(FILE *file, const char *comment, int n_cases, uint64_t (*one_case)(int)) {
  fprintf(file, "# SPDX-License-Identifier: Apache-2.0\n# %s\n", comment);
  for (int i = 0; i < n_cases; ++i)
    fprintf(file, "%d %016" PRIx64 "\n", i, one_case(i));
}

static void compare_with_file(FILE *file, int n_cases, uint64_t (*one_case)(int)) {
  int number = 0, n = 0;
  uint64_t want = 0;
  char line[128];
  while (fgets(line, sizeof line, file)) {
    if (line[0] == '#') continue;
    if (!CHECK_MSG(sscanf(line, "%d %" SCNx64, &number, &want) == 2 && number == n, "%s", line))
      return;
    ++n;
    const uint64_t got = one_case(number);
    CHECK_MSG(got == want, "case %d: digest %016" PRIx64 ", the file has %016" PRIx64, number, got,
              want);
  }
  CHECK_MSG(n == n_cases, "%d cases in the file", n);
}

void test_digests(const char *path, bool write, const char *comment, int n_cases,
                  uint64_t (*one_case)(int number)) {
  FILE *file = fopen(path, write ? "w" : "r");
  if (!CHECK_MSG(file != NULL, "%s", path)) return;
  if (write) {
    write_file(file, comment, n_cases, one_case);
  } else {
    compare_with_file(file, n_cases, one_case);
  }
  fclose(file);
}
