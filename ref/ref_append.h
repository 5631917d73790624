/* The oracle of append: one element after the other, from the formulas of docs/numerics.md.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Results of f32 operations are rounded from double, where a quotient and a product are good to
 * more than twice their bits. It trusts its input and shares no code with the library. */
#ifndef SPLITKV_REF_APPEND_H
#define SPLITKV_REF_APPEND_H

#include <splitkv/append.h>

/* Writes what splitkv_append writes. */
void ref_append(const splitkv_problem *problem, const splitkv_append_args *args);

#endif
