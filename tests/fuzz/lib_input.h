/* Numbers out of a fuzz input, front to back; zeros when it is used up.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_FUZZ_LIB_INPUT_H
#define SPLITKV_FUZZ_LIB_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct fuzz_input {
  const uint8_t *data;
  size_t left;
} fuzz_input;

/* A broken promise ends the program, in every build type. */
#define FUZZ_CHECK(condition)                                                                      \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: FAILED: %s\n", __FILE__, __LINE__, #condition);                      \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

static inline uint8_t fuzz_byte(fuzz_input *in) {
  if (in->left == 0) return 0;
  --in->left;
  return *in->data++;
}

/* first .. last, both included; at most 256 values. */
static inline int64_t fuzz_range(fuzz_input *in, int64_t first, int64_t last) {
  return first + fuzz_byte(in) % (last - first + 1);
}

static inline int64_t fuzz_raw(fuzz_input *in) {
  uint64_t x = 0;
  for (int i = 0; i < 8; ++i)
    x |= (uint64_t)fuzz_byte(in) << (8 * i);
  int64_t value;
  memcpy(&value, &x, sizeof value);
  return value;
}

/* Mostly small, sometimes around a power of two, sometimes anything. */
static inline int64_t fuzz_number(fuzz_input *in) {
  const uint8_t kind = fuzz_byte(in);
  if (kind < 160) return kind;
  if (kind < 200) return fuzz_byte(in) * 16 + (kind - 160);
  if (kind < 240) {
    const uint64_t power = UINT64_C(1) << (fuzz_byte(in) % 64);
    const uint64_t near = power + (uint64_t)(kind - 220);
    int64_t value;
    memcpy(&value, &near, sizeof value);
    return value;
  }
  return kind < 244 ? -(int64_t)fuzz_byte(in) : fuzz_raw(in);
}

#endif
