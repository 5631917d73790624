/* The problem grammar: words such as "b=4 hq=32 kv=100..4000" to a description and back.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Nothing here depends on the machine or prints: errors come back as one sentence. */
#ifndef SPLITKV_TOOL_PROBLEM_TEXT_H
#define SPLITKV_TOOL_PROBLEM_TEXT_H

#include <splitkv/splitkv.h>

#include <stddef.h>
#include <stdint.h>

typedef enum counts_kind {
  COUNTS_EVERY = 0, /* every request has `low` */
  COUNTS_RANGE = 1, /* uniform in low .. high, from the seed */
  COUNTS_LIST = 2   /* runs */
} counts_kind;

/* n_requests requests in a row with the same count. */
typedef struct counts_run {
  int64_t count, n_requests;
} counts_run;

/* One number of each request: its tokens, its query rows. */
typedef struct request_counts {
  counts_kind kind;
  int64_t low, high;
  counts_run *runs; /* [n_runs], owned */
  size_t n_runs;
} request_counts;

typedef enum table_kind { TABLE_IDENTITY = 0, TABLE_SHUFFLED = 1, TABLE_SHARED = 2 } table_kind;
typedef enum data_kind { DATA_NORMAL = 0, DATA_ADVERSARIAL = 1 } data_kind;

/* What is to compute a problem: some words are for one of them only. */
typedef enum problem_device { PROBLEM_CPU = 0, PROBLEM_ASCEND = 1 } problem_device;

typedef struct problem_spec {
  problem_device device; /* set before the first word is read */
  uint64_t given;        /* bit i: word i of the grammar was given */
  int64_t b, hq, hkv, d, dv, page, seed, threads;
  request_counts kv, q;                        /* tokens and query rows of each request */
  int64_t dtype, dtype_q, dtype_kv, dtype_out; /* splitkv_dtype */
  int64_t layout;                              /* splitkv_layout */
  int64_t split;                               /* splitkv_split_policy */
  int64_t split_value;
  int64_t table;      /* table_kind */
  int64_t isa;        /* splitkv_isa */
  int64_t arithmetic; /* splitkv_arithmetic */
  int64_t data;       /* data_kind */
  int64_t index;      /* splitkv_index_type */
  int64_t format;     /* splitkv_table_format */
  int64_t cores;      /* PROBLEM_ASCEND: as the three below */
  int64_t rule;       /* splitkv_ascend_rule */
  int64_t pages;      /* of the cache; 0: as many as the table can name */
  int64_t width;      /* entries of a row of the table; 0: what the longest request needs */
  double scale;
  int64_t window;                           /* 0: none */
  double softcap;                           /* 0: none */
  int64_t sinks, alibi;                     /* 0 or 1 */
  int64_t causal;                           /* 0 or 1 */
  int64_t window_right;                     /* 0: none */
  int64_t chunk, tree;                      /* tokens; 0: none */
  int64_t prefix;                           /* tokens in pages that all requests name; 0: none */
  int64_t unshared;                         /* 0 or 1: the plan is not told of the prefix */
  int64_t k_scales, v_scales, scales_dtype; /* splitkv_scale_mode, splitkv_dtype */
  int64_t zeros;                            /* 0 or 1: zero points */
  int64_t mla;                              /* 0 or 1: V is the first dv channels of K */
  int64_t model;                            /* index of model_presets, where the word was given */
} problem_spec;

typedef struct text_error {
  char message[240]; /* one sentence that names the word, its value and what would be right */
} text_error;

/* No word given, for the CPU. Takes no memory. */
void problem_spec_init(problem_spec *spec);
void problem_spec_free(problem_spec *spec);

/* Whether a word has this name, on any device. */
int problem_has_word(const char *name);

/* Adds the words of `text`, separated by blanks. Returns 0, or -1 with *error: unknown word, word
 * given twice (also in an earlier call), bad value. */
int problem_spec_parse(problem_spec *spec, const char *text, text_error *error);

/* The words given in `source` replace those of `spec`. Returns 0, or -1 when memory is short. */
int problem_spec_override(problem_spec *spec, const problem_spec *source);

/* A word that both give, NULL where there is none. */
const char *problem_spec_common_word(const problem_spec *a, const problem_spec *b);

/* Gives the words that were not given what the model has, or their default (threads:
 * default_threads), and checks what concerns two words. Returns 0, or -1 with *error. */
int problem_spec_complete(problem_spec *spec, int64_t default_threads, text_error *error);

/* The words as text, all of them (a model as the words that it stands for) or only those given;
 * NULL when memory is short. free() it. */
char *problem_spec_format(const problem_spec *spec, int only_given);

/* The lengths and the query rows of the requests of a complete spec, [b], at least one element;
 * NULL when memory is short. free() them. */
int64_t *problem_spec_lengths(const problem_spec *spec);
int64_t *problem_spec_q_rows(const problem_spec *spec);

/* Has every request one query row without any word about it? */
int problem_spec_is_decode(const problem_spec *spec);
/* The first word that makes it more than attention of query rows, causal or not, to a cache of
 * numbers, "window=" or "sinks"; NULL where there is none. */
const char *problem_spec_variant(const problem_spec *spec);

/* Is it a dtype of codes that scales make numbers of? */
int problem_is_quantised(int64_t dtype);

/* "f16", "token", and "size:2048". */
const char *problem_dtype_name(int64_t dtype);
const char *problem_scale_mode_name(int64_t mode);
const char *problem_rule_name(int64_t rule);
void problem_split_text(int64_t policy, int64_t value, char *text, size_t capacity);

/* One line per word, for the help texts; and of the words that are for PROBLEM_ASCEND only. */
extern const char problem_grammar_help[];
extern const char problem_ascend_help[];

/* A small generator, the same everywhere (splitmix64). */
uint64_t random_next(uint64_t *state);

#endif
