/* What stands in the tensors: a pure function of seed, tensor, source, head, token and channel.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Integers and exact products only, no libm, so that every machine makes the same numbers. */
#include "value.h"

#include "rng.h"

#include <math.h>
#include <string.h>

static uint64_t hash_row(const test_spec *spec, char tensor, int64_t source, int64_t head,
                         int64_t token) {
  uint64_t h = rng_mix(spec->seed + 0x9e3779b97f4a7c15ULL * (uint64_t)(unsigned char)tensor);
  h = rng_mix(h ^ ((uint64_t)source << 40) ^ ((uint64_t)head << 32) ^ (uint64_t)token);
  return h;
}

/* Four uniform numbers added: mean 0, variance 1, within 3.5. */
static double near_normal(uint64_t h) {
  const int64_t sum = (int64_t)(h & 0xffff) + (int64_t)(h >> 16 & 0xffff) +
                      (int64_t)(h >> 32 & 0xffff) + (int64_t)(h >> 48);
  return (double)(sum - 2 * 65535) * (1.734375 / 65536);
}

/* x to a multiple of 1/n, without libm. Data with large scores has Q and K on grids on which f32
 * holds every dot product exactly: the error bound speaks of the score, and says nothing about
 * terms much larger than it that cancel. */
static double on_grid(double x, int64_t n) {
  return (double)(int64_t)(x * (double)n) / (double)n;
}

/* Tokens in classes: no score, huge score, same score as others; V of very different sizes. */
static double adversarial(char tensor, uint64_t row, double normal) {
  const unsigned kind = (unsigned)(row >> 11 & 15);
  if (tensor == 'q') return on_grid(2 * normal, 8);
  if (tensor == 'k') {
    return kind < 2 ? 0 : kind < 4 ? on_grid(16 * normal, 4) : kind < 6 ? 0.5 : on_grid(normal, 4);
  }
  return kind < 3 ? 1000 * normal : kind < 6 ? normal * 0x1p-14 : kind < 8 ? 0 : normal;
}

/* Sinks like scores, some of them none. Slopes of every size, some 0, few of the wrong sign. */
static double of_head(char tensor, uint64_t h, double normal) {
  if (tensor == 's') return h % 6 == 0 ? (double)-INFINITY : 3 * normal;
  const double slope = 1.0 / (double)(1 << (h >> 8) % 12);
  return h % 8 == 0 ? 0 : h % 16 == 1 ? -slope / 256 : slope;
}

/* Scales with which the codes of near normal numbers use most of their range; powers of two where
 * the data asks for exact products. And zero points somewhere in the middle of the codes. */
static double of_codes(const test_spec *spec, char tensor, uint64_t h) {
  static const double bases[] = {0x1p-5, 0x1p-7, 0x1p-8, 0x1p-1}; /* int8, e4m3, e5m2, int4 */
  const int dtype = (int)spec->problem.dtype_kv;
  if (tensor == 'm' || tensor == 'n') {
    return dtype == SPLITKV_INT4 ? (double)(int64_t)(h % 17) : (double)(int64_t)(h % 81) - 40;
  }
  const double base = bases[dtype - SPLITKV_INT8];
  if (spec->data != DATA_NORMAL) return base * (double)(1 << h % 3);
  return base * (1 + (double)(int64_t)(h >> 20 & 0xfffff) * 0x1p-20) * (h % 16 == 0 ? -1 : 1);
}

double test_value_at(const test_spec *spec, char tensor, int64_t source, int64_t head,
                     int64_t token, int64_t channel) {
  if (spec->value) return spec->value(spec, tensor, source, head, token, channel);
  const uint64_t row = hash_row(spec, tensor, source, head, token);
  const double normal = near_normal(rng_mix(row + 0x9e3779b97f4a7c15ULL * (uint64_t)channel));
  if (tensor == 's' || tensor == 'a') return of_head(tensor, row, normal);
  if (strchr("xymn", tensor)) {
    return of_codes(spec, tensor, rng_mix(row + 0x9e3779b97f4a7c15ULL * (uint64_t)channel));
  }
  switch (spec->data) {
  case DATA_PEAKED:
    return tensor == 'q' ? on_grid(6 * normal, 8) : tensor == 'k' ? on_grid(normal, 8) : normal;
  case DATA_ADVERSARIAL:
    return adversarial(tensor, row, normal);
  default:
    return normal;
  }
}

bool test_special_at(const test_spec *spec, char tensor, int64_t source, int64_t head,
                     int64_t token, int64_t channel, double *value) {
  if (!spec->specials) return false;
  const uint64_t h = hash_row(spec, '!', source, head, token);
  const bool in_k = h % 2 == 0 || spec->v_aliases_k;
  const int64_t width = in_k ? spec->problem.head_dim : spec->problem.head_dim_v;
  if (h / 2 % 3 != 0 || tensor != (in_k ? 'k' : 'v')) return false;
  if (channel != (int64_t)((h >> 8) % (uint64_t)width)) return false;
  /* An infinity behind a weight that ALiBi makes negligible is finite or NaN, as the cuts fall, and
   * so is one in V whose own score it makes -inf. */
  const bool is_nan =
      (h >> 40) % 3 == 0 || spec->v_aliases_k || (spec->problem.flags & SPLITKV_FLAG_ALIBI) != 0;
  *value = is_nan ? (double)NAN : (h >> 40) % 3 == 1 ? (double)INFINITY : -(double)INFINITY;
  return true;
}

/* Of the first kind of mask: by row none, all, few or half of the bits. */
static uint64_t random_word(uint64_t row, uint64_t word) {
  const uint64_t bits = rng_mix(row + 1 + word), more = rng_mix(bits + 1);
  switch (row >> 13 & 3) {
  case 0:
    return 0;
  case 1:
    return ~(uint64_t)0;
  case 2:
    return bits & more & rng_mix(more + 1);
  default:
    return bits;
  }
}

bool test_tree_bit(const test_spec *spec, int64_t r, int64_t i, int64_t bit) {
  const int64_t age = spec->q_ages[r] + test_rows_of(spec, r) - 1 - i;
  const int64_t from_end = spec->problem.tree_tokens - 1 - bit;
  const uint64_t row = hash_row(spec, 't', spec->sources[r], 0, age);
  if (from_end < 0 || from_end >= spec->kv_lens[r]) return (rng_mix(row ^ (uint64_t)bit) & 1) != 0;
  if (spec->tree == TREE_ALL) return true;
  if (spec->tree == TREE_CAUSAL) return from_end >= age;
  return (random_word(row, (uint64_t)from_end / 64) >> (from_end % 64) & 1) != 0;
}
