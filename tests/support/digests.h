/* Files of digests: what cases gave once, and have to give on every machine.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_DIGESTS_H
#define SPLITKV_TEST_DIGESTS_H

#include <stdbool.h>
#include <stdint.h>

/* Checks that the file has the digests of cases 0 .. n_cases-1 and no others, or writes it, with
 * `comment` as its second line. */
void test_digests(const char *path, bool write, const char *comment, int n_cases,
                  uint64_t (*one_case)(int number));

#endif
