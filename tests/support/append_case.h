/* Random calls of splitkv_append, with what the oracle makes of them.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every buffer lies flush against a forbidden page. What is written is full of a pattern before, so
 * that a byte that no token of the call names is compared, too. */
#ifndef SPLITKV_TEST_APPEND_CASE_H
#define SPLITKV_TEST_APPEND_CASE_H

#include "guard.h"
#include "rng.h"

#include <splitkv/append.h>

#include <stdbool.h>

/* Tensors that append writes. */
enum { APPEND_K, APPEND_V, APPEND_K_SCALES, APPEND_V_SCALES, APPEND_K_ZEROS, APPEND_V_ZEROS };
enum { N_APPEND_OUTPUTS = 6, N_APPEND_INPUTS = 6 };

typedef struct append_case {
  splitkv_problem problem;
  splitkv_append_args args;
  guard_buffer inputs[N_APPEND_INPUTS]; /* k_new, v_new, slots, positions, cos, sin */
  guard_buffer outputs[N_APPEND_OUTPUTS];
  unsigned char *before[N_APPEND_OUTPUTS]; /* of what is written: the bytes before the call */
  unsigned char *want[N_APPEND_OUTPUTS];   /* and after it */
  uint64_t inputs_digest;
} append_case;

/* What a case is made of; the builder fills in the rest from the rng. */
typedef struct append_spec {
  splitkv_problem problem; /* strides of the caches are the builder's */
  int64_t n_tokens;        /* at most the slots of the cache */
  splitkv_dtype dtype_new;
  int64_t rotary_dim;
  splitkv_rotary_style rotary_style;
  uint32_t flags;
  bool stores_v;     /* else V aliases K */
  bool has_specials; /* NaN, inf, -0, subnormal and huge numbers among the elements */
  int stride_kind;   /* 0 .. 2, with LAYOUT_STRIDES */
  guard_side side;
  int64_t misaligned; /* bytes by which the caches miss a line, a multiple of their element */
} append_spec;

/* Anything that append does, small. */
void append_spec_random(append_spec *spec, rng *r);

void append_case_build(append_case *c, const append_spec *spec, rng *r);
void append_case_destroy(append_case *c);

/* Names a kernel set; where it does not do the dtype of KV, the class f32 takes over. */
void append_use(splitkv_problem *problem, splitkv_isa isa);

/* Calls append on a kernel set and compares all bytes; guards and inputs have to be as they were.
 * False after a failed check, with the case printed. */
bool append_case_run(append_case *c, splitkv_isa isa, const splitkv_pool *pool, const char *name);

/* The same comparison behind calls that the test has made itself, from what build left. */
bool append_case_compare(const append_case *c, const char *name);

/* 64-bit FNV-1a over all that was written, the same on every machine. */
uint64_t append_case_digest(const append_case *c);

#endif
