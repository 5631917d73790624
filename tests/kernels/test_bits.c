/* All kernel sets of the f32 arithmetic class give the same bits, and the same bits as ever.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_bits FILE [--variants | --quantised] [--write]. FILE has one line per case: its
 * number and the digest of out and lse. Every machine and compiler compares with the same file, so
 * x86-64 and AArch64 are compared with each other. --write makes the file anew with the scalar
 * kernels, for a change that is meant to change bits. */
#include "../../src/cpu/isa.h"
#include "batch.h"
#include "check.h"
#include "digests.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_CASES = 360 };

static bool with_variants; /* windows, soft-caps, sinks and ALiBi in all combinations */
static bool is_quantised;  /* KV in codes, special ones and special scales among them */

/* Units of 512 bits or halves of them, lines asked for near or not: what the library believes to
 * have picks the blocks of the set avx512. The linker leads its calls here. */
static uint32_t turned_bits;
static const uint32_t turns[] = {0, SPL_CPU_WIDE, SPL_CPU_NEAR, SPL_CPU_WIDE | SPL_CPU_NEAR};
enum { N_TURNS = sizeof turns / sizeof turns[0] };
uint32_t __real_spl_cpu_bits(void);
uint32_t __wrap_spl_cpu_bits(void);
uint32_t __wrap_spl_cpu_bits(void) {
  return __real_spl_cpu_bits() ^ turned_bits;
}

/* Near normal numbers among which some rows have inf, NaN, -0, a subnormal or a huge element. */
static double with_specials(const test_spec *spec, char tensor, int64_t source, int64_t head,
                            int64_t token, int64_t channel) {
  static const double specials[] = {(double)INFINITY, -(double)INFINITY, (double)NAN, -0.0,
                                    0x1p-20,          0x1p-130,          60000,       -60000};
  const uint64_t row = rng_mix(spec->seed + (uint64_t)tensor * 977 +
                               (uint64_t)(source * 131 + head) * 65537 + (uint64_t)token);
  const uint64_t h = rng_mix(row + (uint64_t)channel);
  /* One source in three is free of inf and NaN in Q and K, so that V shows. */
  const int first = tensor != 'v' && source % 3 == 0 ? 3 : 0;
  if (row % 41 == 0 && h % 5 == 0)
    return specials[first + (int)((h >> 20) % (uint64_t)(8 - first))];
  return (double)((int64_t)(h >> 40) % 4001 - 2000) / 1000;
}

static void make_spec(test_spec *spec, int number) {
  const test_ranges ranges = {6, 1500, SPLITKV_MAX_HEAD_DIM, 3, 64, 9000};
  rng r = {(uint64_t)number * 7919 + 5};
  test_spec_random(spec, &r, &ranges);
  if (is_quantised) {
    if (number % 5 == 0) test_spec_vary(spec, &r, number / 5 % N_VARIANTS);
    test_spec_quantise(spec, &r);
    if (number % 4 == 0) spec->value = with_specials;
  } else if (with_variants) {
    test_spec_vary(spec, &r, number % N_VARIANTS);
  } else if (number % 4 == 0) {
    spec->value = with_specials;
  }
}

/* Whether the outputs of the last run are byte for byte those kept before. */
static bool same_bytes(const test_batch *b, const unsigned char *out, const unsigned char *lse) {
  return memcmp(b->out.data, out, b->out.size_bytes) == 0 &&
         memcmp(b->lse.data, lse, b->lse.size_bytes) == 0;
}

static void compare_kernel_sets(test_batch *b, int number) {
  splitkv_isa isas[TEST_MAX_ISAS];
  const int n = test_usable_isas(isas);
  unsigned char *out = malloc(b->out.size_bytes + 1), *lse = malloc(b->lse.size_bytes + 1);
  if (CHECK(out && lse)) {
    memcpy(out, b->out.data, b->out.size_bytes);
    memcpy(lse, b->lse.data, b->lse.size_bytes);
    for (int i = 0; i < N_TURNS * n; ++i) {
      const splitkv_isa isa = isas[i / N_TURNS];
      if (test_isa_arithmetic(isa) != SPLITKV_ARITHMETIC_F32) continue;
      if (i % N_TURNS && isa != SPLITKV_ISA_AVX512) continue;
      b->problem.isa = isa;
      turned_bits = turns[i % N_TURNS];
      if (test_batch_run(b, NULL) &&
          !CHECK_MSG(same_bytes(b, out, lse), "case %d: %s differs from scalar", number,
                     test_isa_name(isa)))
        test_batch_print(b);
    }
    turned_bits = 0;
  }
  free(out);
  free(lse);
}

static uint64_t one_case(int number) {
  static test_spec spec;
  make_spec(&spec, number);
  test_batch b;
  test_batch_build(&b, &spec);
  b.problem.isa = SPLITKV_ISA_SCALAR;
  uint64_t digest = 0;
  if (test_batch_run(&b, NULL)) {
    digest = test_batch_digest(&b);
    compare_kernel_sets(&b, number);
  }
  test_batch_destroy(&b);
  return digest;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fputs("usage: test_bits FILE [--variants | --quantised] [--write]\n", stderr);
    return 2;
  }
  with_variants = argc > 2 && strcmp(argv[2], "--variants") == 0;
  is_quantised = argc > 2 && strcmp(argv[2], "--quantised") == 0;
  const bool write = strcmp(argv[argc - 1], "--write") == 0;
  test_digests(argv[1], write, "case, FNV-1a of out and lse; made by test_bits --write", N_CASES,
               one_case);
  return check_report("bits");
}
