/* What the peers of a case came to: their times beside ours, their results beside the oracle's.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_VERSUS_H
#define SPLITKV_TOOL_VERSUS_H

#include "bench.h"
#include "options.h"
#include "verify.h"

struct cJSON;

/* Zero is: no peers. */
typedef struct versus {
  peer_choice choices[BENCH_MAX_PEERS];
  size_t n;
  peer_settings settings;
} versus;

/* Finds the peers that --vs named. Returns TOOL_OK, or the status of the error line it printed. */
int versus_choose(versus *v, const option_list *names);

/* What one peer came to in one case; nothing here belongs to anybody. */
typedef struct peer_outcome {
  peer_state state;
  char reason[240];
  char version[80], path[120], layout[40], kv_dtype[16];
  int64_t n_copies;
  bench_peer_result times;
  double ratio; /* its time / our time */
  verdict verdict;
  double relative_l2;
  int is_wrong; /* so far off that it is no attention */
} peer_outcome;

/* The peers of one case. Zero before and after. */
typedef struct versus_case {
  peer_data data;
  peer peers[BENCH_MAX_PEERS];
  size_t n;
} versus_case;

/* Starts all peers on a built case, one after the other. Returns TOOL_OK, also where a peer does
 * not support the case or breaks, or the status of the error line it printed: no memory, or a peer
 * that is not installed. Call versus_end in any case. */
int versus_begin(versus_case *vc, const versus *v, const tool_case *c, const char *name);
void versus_end(versus_case *vc);

/* Fetches the peers' results and judges them and their times: outcomes[n]. */
void versus_judge(versus_case *vc, const tool_case *c, const bench_result *result,
                  const oracle *expected, peer_outcome *outcomes);

/* "in bound", "31x bound", "WRONG", "unsupported: why". */
void versus_result_text(const peer_outcome *o, char *text, size_t capacity);

/* Adds "peers" of one case. */
void versus_add_json_case(struct cJSON *row, const versus *v, const peer_outcome *outcomes);

/* Over all cases: outcomes[n_cases][BENCH_MAX_PEERS]. Adds "peers" to a report; prints a line for
 * each peer. */
void versus_add_json_means(struct cJSON *report, const versus *v,
                           peer_outcome (*outcomes)[BENCH_MAX_PEERS], size_t n_cases);
void versus_print_means(const versus *v, peer_outcome (*outcomes)[BENCH_MAX_PEERS], size_t n_cases);

#endif
