/* Requests whose first tokens lie in the same pages.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_PREFIX_H
#define SPLITKV_TOOL_PREFIX_H

#include "case.h"

/* Whole pages of the prefix that the problem asks for; 0 without one. */
int64_t prefix_pages(const problem_spec *spec);

/* Does request r have all of it? */
int prefix_has(const tool_case *c, int64_t r);

/* Names the prefix in the batch, unless the problem says not to, and counts n_prefix_rows. Lengths
 * and query rows are there. Returns 0, or -1 when memory is short. */
int prefix_describe(tool_case *c);

#endif
