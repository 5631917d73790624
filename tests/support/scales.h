/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_SCALES_H
#define SPLITKV_TEST_SCALES_H

#include "batch.h"

/* Channels of K ('k') or V that share a scale, and how many scales a row has. */
int64_t test_group_size(const splitkv_problem *problem, char tensor);
int64_t test_scale_count(const splitkv_problem *problem, char tensor);

/* Whether scales lie with the tokens of the cache, and whether there are any, and zero points. */
bool test_scales_by_token(const splitkv_problem *problem, char tensor);
bool test_has_scales(const splitkv_problem *problem, char tensor);
bool test_has_zeros(const splitkv_problem *problem, char tensor);

/* What stands in the scale and the zero point of an element, as the tensors hold them. */
double test_scale_at(const test_spec *spec, char tensor, int64_t source, int64_t head,
                     int64_t token, int64_t channel);
double test_zero_at(const test_spec *spec, char tensor, int64_t source, int64_t head, int64_t token,
                    int64_t channel);

/* Stores what stands nearest to an element. */
void test_store_code(const test_spec *spec, unsigned char *data, int64_t index, char tensor,
                     int64_t source, int64_t head, int64_t token, int64_t channel);

/* Scales and zero points of TENSOR, HEAD and CHANNEL. */
void test_fill_fixed_scales(test_batch *b, char tensor);

#endif
