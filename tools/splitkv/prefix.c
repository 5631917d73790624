/* SPDX-License-Identifier: Apache-2.0 */
#include "prefix.h"

#include <stdlib.h>

int64_t prefix_pages(const problem_spec *spec) {
  return spec->prefix / spec->page;
}

int prefix_has(const tool_case *c, int64_t r) {
  int64_t n = prefix_pages(c->spec);
  return n > 0 && c->kv_lens[r] >= n * c->spec->page;
}

int prefix_describe(tool_case *c) {
  int64_t b = c->spec->b, tokens = prefix_pages(c->spec) * c->spec->page;
  if (tokens == 0 || c->spec->unshared || b == 0) {
    return 0;
  }
  c->prefixes = calloc((size_t)b, sizeof *c->prefixes);
  if (!c->prefixes) {
    return -1;
  }
  int64_t n = 0;
  for (int64_t r = 0; r < b; r++) {
    if (!prefix_has(c, r)) {
      continue;
    }
    if (r == 0 || !prefix_has(c, r - 1)) {
      c->prefixes[n++] = (splitkv_prefix){r, 0, tokens};
    }
    c->prefixes[n - 1].n_requests++;
    c->n_prefix_rows += c->q_offsets[r + 1] - c->q_offsets[r];
  }
  c->batch.prefixes = c->prefixes;
  c->batch.n_prefixes = n;
  return 0;
}
