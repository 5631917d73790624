/* Times one case beside the machine's roofs and other libraries, in turn.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_BENCH_H
#define SPLITKV_TOOL_BENCH_H

#include "case.h"
#include "peer.h"

enum { BENCH_MAX_PEERS = 8 };

typedef struct bench_settings {
  double seconds; /* to spend on one measurement, about; each peer adds as much */
  int is_warm;    /* every run reads the same KV, else copies in turn that no cache can hold */
} bench_settings;

/* Times in seconds; medians over the rounds, and (90th - 10th percentile) / median. */
typedef struct bench_peer_result {
  double time, time_min, time_max, spread;
  double cpu_time; /* all threads together, mean */
  int is_noisy;
  char noise[80];
} bench_peer_result;

/* Times in seconds; medians over the rounds. */
typedef struct bench_result {
  double time, time_min, time_max;
  double spread;        /* (90th - 10th percentile) / median of the run's time */
  double cpu_time;      /* CPU time per run, all threads together, mean */
  double memory_roof;   /* time to read the KV once */
  double compute_roof;  /* time for the multiply-adds at their peak rate */
  double read_rate;     /* bytes per second of the better reader */
  double multiply_rate; /* multiply-adds per second */
  int64_t n_rounds;
  int64_t n_copies;
  int is_noisy;                             /* still, after it was measured again */
  char noise[80];                           /* why */
  char failure[160];                        /* a run failed or two runs differed; "" if not */
  bench_peer_result peers[BENCH_MAX_PEERS]; /* of those that are still ready in the end */
} bench_result;

/* Measures a built case, and those of the n_peers peers that are ready in the same rounds. The
 * outputs of the last run are left in place. Returns TOOL_OK, or the status of the error line it
 * printed. */
int bench_measure(tool_case *c, const char *name, const splitkv_pool *pool,
                  const bench_settings *settings, peer *peers, size_t n_peers,
                  bench_result *result);

#endif
