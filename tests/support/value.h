/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TEST_VALUE_H
#define SPLITKV_TEST_VALUE_H

#include "batch.h"

/* The element that spec puts there, before it is rounded to its dtype. */
double test_value_at(const test_spec *spec, char tensor, int64_t source, int64_t head,
                     int64_t token, int64_t channel);

/* Whether the spec puts NaN or an infinity there instead, in a token that only some rows attend to,
 * and then which (*value). */
bool test_special_at(const test_spec *spec, char tensor, int64_t source, int64_t head,
                     int64_t token, int64_t channel, double *value);

#endif
