/* Another library that computes the same case, in a process of its own (bench/peers/README.md).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_PEER_H
#define SPLITKV_TOOL_PEER_H

#include "case.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ── the case as a peer gets it ─────────────────────────────────────────────────────────────── */

/* A file without a name that holds the tensors, and the line of JSON that says where. */
typedef struct peer_data {
  int fd; /* -1 where there is none */
  size_t out_offset;
  size_t n_out; /* f32 numbers */
} peer_data;

/* Returns TOOL_OK, or the status of the error line it printed. Call peer_data_free in either
 * case. */
int peer_data_create(peer_data *data, const tool_case *c, const char *name);
void peer_data_free(peer_data *data);

/* ── the process ────────────────────────────────────────────────────────────────────────────── */

typedef enum peer_state {
  PEER_UNTRIED,
  PEER_READY,
  PEER_UNSUPPORTED, /* it has no such case: `reason` */
  PEER_MISSING,     /* its library is not installed: `reason` */
  PEER_BROKEN       /* it died, hung or spoke nonsense: `reason` */
} peer_state;

/* What --vs named. */
typedef struct peer_choice {
  const char *text; /* "ggml" or "onnxruntime:f32", a pointer into argv */
  char name[64];
  char path[512];
  const char *kv_dtype; /* wanted: "f32", or NULL: that of the case */
} peer_choice;

/* Finds the program. Returns TOOL_OK, or the status of the error line it printed. */
int peer_find(const char *text, peer_choice *choice);

typedef struct peer {
  const peer_choice *choice;
  peer_state state;
  char reason[240];
  char version[80], path[120], layout[40], kv_dtype[16];
  int64_t n_copies; /* of its KV, that it reads in turn */
  float *out;       /* [n_out] the last result */

  /* Its own business from here on. */
  int64_t next_copy;
  int is_stopped, is_restless;
  pid_t pid, group;              /* 0: there is none */
  int requests, answers, errors; /* file descriptors, -1: there is none */
  double timeout;
  char buffer[8192];
  size_t n_buffered;
} peer;

typedef struct peer_settings {
  double timeout; /* seconds for one answer */
  int is_warm;    /* one copy of KV is enough */
} peer_settings;

/* Starts the program and waits until it has the case in memory. The state says how that went. Call
 * peer_end in any case. */
void peer_begin(peer *p, const peer_choice *choice, const tool_case *c, const peer_data *data,
                const peer_settings *settings);
void peer_end(peer *p);

typedef struct peer_time {
  double seconds;     /* as the peer measured it */
  double answer;      /* from the request to the answer */
  double cpu_seconds; /* of the peer's threads together, from the request to the answer */
} peer_time;

/* One run on the next copy. Returns 0, or -1 when the peer broke or was not ready. */
int peer_run(peer *p, peer_time *time);

/* Returns when the peer's threads take no time any more; stops those that go on all the same until
 * the next request. */
void peer_calm(peer *p);

/* Fetches `out` of the last run. Returns 0, or -1 when the peer broke. */
int peer_fetch_out(peer *p, const peer_data *data);

#endif
