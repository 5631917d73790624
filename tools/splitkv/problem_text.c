/* SPDX-License-Identifier: Apache-2.0 */
#include "problem_text.h"

#include "models.h"
#include "tool.h"

#include <splitkv/ascend.h>

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char problem_grammar_help[] =
    "The words of a PROBLEM, in any order, and their defaults:\n"
    "  b=1              requests in the batch; left out beside a list of lengths\n"
    "  hq=32 hkv=8      query heads and KV heads; hq is a multiple of hkv\n"
    "  d=128 dv=128     channels of Q and K, and of V; dv is d where left out\n"
    "  page=128         tokens per page of the KV cache\n"
    "  kv=4096          every request attends to this many tokens\n"
    "  kv=100..4000     uniform random lengths, from the seed\n"
    "  kv=5,0,512x63    one each; LENGTHxCOUNT repeats a length\n"
    "  q=1              query rows of each request, at its newest tokens; a number, a\n"
    "                   range or a list, as for kv\n"
    "  dtype=f16        f32, f16 or bf16 for Q, KV and out;\n"
    "  dtype_q= dtype_kv= dtype_out=   the same for one of them\n"
    "  kv_dtype=f16     another name of dtype_kv; also int8, fp8_e4m3, fp8_e5m2 and\n"
    "                   int4, codes that scales make numbers of\n"
    "  scales=K/V       what shares a scale, of K and of V or, without the slash, of\n"
    "                   both: none, tensor, head, channel, token, group32, group64;\n"
    "                   token of int8 and int4, tensor of fp8 where left out\n"
    "  scales_dtype=f32 f32 or f16 scales\n"
    "  zeros            int8 and int4 have zero points, where their scales are\n"
    "  layout=nhd       nhd: [pages, page, hkv, d]; hnd: [pages, hkv, page, d]\n"
    "  split=auto       auto, none, size:TOKENS or count:SPLITS\n"
    "  table=identity   identity, shuffled (pages in random order) or shared (pages\n"
    "                   that several requests name)\n"
    "  format=dense     dense or csr block table\n"
    "  index=i32        i32 or i64 page ids and lengths\n"
    "  data=normal      normal or adversarial (rising scores, spikes, cancelling\n"
    "                   sums, subnormals, ties)\n"
    "  scale=X          factor of q.k; 1/sqrt(d) where left out\n"
    "  window=0         a row attends to so many tokens up to its own; 0: to all\n"
    "  softcap=0        X: scores become X tanh(score / X); 0: they stay\n"
    "  sinks            each query head has a sink, from the seed\n"
    "  alibi            scores are biased by distance, by 2^(-8(h+1)/hq) a token\n"
    "  causal           a row attends to no token behind its own\n"
    "  window_right=0   N: to N tokens from its own on; 0: to all; not with causal\n"
    "  chunk=0          N: a row attends to tokens t with t / N as its own only\n"
    "  tree=0           N: of the newest N tokens, a row attends to those on its way\n"
    "                   to the root of a random tree, from the seed, and to itself\n"
    "  prefix=0         N: the first N tokens, in whole pages, lie in the same pages\n"
    "                   for all requests that have them, and are read once for all\n"
    "  unshared         the same pages, each read for each request\n"
    "  mla              V is the first dv channels of K, in K's memory\n"
    "  model=NAME       words of a model, where they are not given: its heads, d, dv,\n"
    "                   scale, variants and causal. NAME/local and NAME/global are\n"
    "                   two kinds of layers of a model, NAME is the latter:\n"
    /* a list of names */
    MODEL_NAMES_HELP "  seed=1           of the random data, lengths and tables\n"
    "  threads=N        workers; as many as this process has CPUs where left out\n"
    "  isa=auto         auto, scalar, avx2, avx512, avx512bf16, avx512vnni or neon\n"
    "  arithmetic=f32   f32: the same bits on every CPU; bf16: dot products of bf16\n"
    "                   too, where the CPU has them and KV is bf16 or fp8; int8:\n"
    "                   those of integers, where KV is int8 or int4 without zeros\n"
    "Numbers may end in k (1024) or M (1048576).\n";

const char problem_ascend_help[] =
    "Words of the Ascend kernel's problems, and their defaults:\n"
    "  cores=24         cube cores of the device\n"
    "  rule=guarded     guarded: long requests are split while the batch is at most\n"
    "                   0.8 x cores; pr683: whatever the batch\n"
    "  width=N          entries of a row of the block table; what the longest request\n"
    "                   needs where left out\n"
    "  pages=N          pages of the cache; b x width where left out\n"
    "The kernel does f16 and bf16, layout nhd, a dense table of i32, dv = d, and its\n"
    "rule splits: other values are refused, and so are isa=, arithmetic=, q= and the\n"
    "words of masks, codes and models. threads= is the host's.\n"
    " With table=identity, page j of request r is page r x width + j.\n";

/* ── the words ──────────────────────────────────────────────────────────────────────────────── */

typedef struct choice {
  const char *name;
  int64_t value;
} choice;

static const choice dtype_choices[] = {
    {"f32", SPLITKV_F32}, {"f16", SPLITKV_F16}, {"bf16", SPLITKV_BF16}, {NULL, 0}};
static const choice kv_dtype_choices[] = {
    {"f32", SPLITKV_F32},           {"f16", SPLITKV_F16},
    {"bf16", SPLITKV_BF16},         {"int8", SPLITKV_INT8},
    {"fp8_e4m3", SPLITKV_FP8_E4M3}, {"fp8_e5m2", SPLITKV_FP8_E5M2},
    {"int4", SPLITKV_INT4},         {NULL, 0}};
static const choice scales_dtype_choices[] = {
    {"f32", SPLITKV_F32}, {"f16", SPLITKV_F16}, {NULL, 0}};
static const choice scale_mode_choices[] = {
    {"none", SPLITKV_SCALE_NONE},       {"tensor", SPLITKV_SCALE_TENSOR},
    {"head", SPLITKV_SCALE_HEAD},       {"channel", SPLITKV_SCALE_CHANNEL},
    {"token", SPLITKV_SCALE_TOKEN},     {"group32", SPLITKV_SCALE_GROUP32},
    {"group64", SPLITKV_SCALE_GROUP64}, {NULL, 0}};
static const choice layout_choices[] = {
    {"nhd", SPLITKV_LAYOUT_NHD}, {"hnd", SPLITKV_LAYOUT_HND}, {NULL, 0}};
static const choice table_choices[] = {{"identity", TABLE_IDENTITY},
                                       {"shuffled", TABLE_SHUFFLED},
                                       {"shared", TABLE_SHARED},
                                       {NULL, 0}};
static const choice isa_choices[] = {{"auto", SPLITKV_ISA_AUTO},
                                     {"scalar", SPLITKV_ISA_SCALAR},
                                     {"avx2", SPLITKV_ISA_AVX2},
                                     {"avx512", SPLITKV_ISA_AVX512},
                                     {"avx512bf16", SPLITKV_ISA_AVX512BF16},
                                     {"avx512vnni", SPLITKV_ISA_AVX512VNNI},
                                     {"neon", SPLITKV_ISA_NEON},
                                     {NULL, 0}};
static const choice arithmetic_choices[] = {{"f32", SPLITKV_ARITHMETIC_F32},
                                            {"bf16", SPLITKV_ARITHMETIC_BF16},
                                            {"int8", SPLITKV_ARITHMETIC_INT8},
                                            {NULL, 0}};
static const choice data_choices[] = {
    {"normal", DATA_NORMAL}, {"adversarial", DATA_ADVERSARIAL}, {NULL, 0}};
static const choice index_choices[] = {{"i32", SPLITKV_I32}, {"i64", SPLITKV_I64}, {NULL, 0}};
static const choice format_choices[] = {
    {"dense", SPLITKV_TABLE_DENSE}, {"csr", SPLITKV_TABLE_CSR}, {NULL, 0}};
static const choice rule_choices[] = {
    {"guarded", SPLITKV_ASCEND_GUARDED}, {"pr683", SPLITKV_ASCEND_PR683}, {NULL, 0}};

typedef enum word_kind {
  WORD_NUMBER,
  WORD_CHOICE,
  WORD_COUNTS,
  WORD_SPLIT,
  WORD_SCALE,
  WORD_SOFTCAP,
  WORD_SCALES,
  WORD_MODEL,
  WORD_FLAG /* a name alone */
} word_kind;

typedef struct word {
  const char *name;
  word_kind kind;
  size_t offset;    /* in problem_spec of the int64_t: NUMBER, CHOICE, FLAG, MODEL; of COUNTS */
  int64_t min, max; /* NUMBER, COUNTS */
  const choice *choices; /* CHOICE */
  unsigned devices;      /* FOR_CPU and FOR_ASCEND */
  const char *alias;     /* another name, or NULL */
} word;

enum { FOR_CPU = 1u << PROBLEM_CPU, FOR_ASCEND = 1u << PROBLEM_ASCEND };
#define FOR_ALL (FOR_CPU | FOR_ASCEND)

/* Largest values: a batch whose lengths fit in memory, and totals that fit in 64 bits. */
#define MAX_REQUESTS ((int64_t)1 << 24)
#define MAX_KV_LEN ((int64_t)1 << 36)
#define MAX_HEADS ((int64_t)INT32_MAX) /* the library's */
#define MAX_PAGE_TOKENS ((int64_t)1 << 31)
#define MAX_PAGES ((int64_t)1 << 36)
#define MAX_SEED (((int64_t)1 << 53) - 1) /* JSON numbers are doubles */

#define NUMBER(name, low, high, devices)                                                           \
  { #name, WORD_NUMBER, offsetof(problem_spec, name), low, high, NULL, devices, NULL }
#define FLAG(name, devices)                                                                        \
  { #name, WORD_FLAG, offsetof(problem_spec, name), 0, 1, NULL, devices, NULL }
#define CHOICE(name, choices, devices)                                                             \
  { #name, WORD_CHOICE, offsetof(problem_spec, name), 0, 0, choices, devices, NULL }
#define COUNTS(name, devices)                                                                      \
  { #name, WORD_COUNTS, offsetof(problem_spec, name), 0, MAX_KV_LEN, NULL, devices, NULL }

/* In the order in which problem_spec_format writes them. */
enum {
  W_B,
  W_HQ,
  W_HKV,
  W_D,
  W_DV,
  W_PAGE,
  W_KV,
  W_Q,
  W_DTYPE,
  W_DTYPE_Q,
  W_DTYPE_KV,
  W_DTYPE_OUT,
  W_LAYOUT,
  W_SPLIT,
  W_TABLE,
  W_FORMAT,
  W_INDEX,
  W_DATA,
  W_SCALE,
  W_SEED,
  W_THREADS,
  W_ISA,
  W_ARITHMETIC,
  W_WINDOW,
  W_SOFTCAP,
  W_SINKS,
  W_ALIBI,
  W_CAUSAL,
  W_WINDOW_RIGHT,
  W_CHUNK,
  W_TREE,
  W_PREFIX,
  W_UNSHARED,
  W_SCALES,
  W_SCALES_DTYPE,
  W_ZEROS,
  W_MLA,
  W_MODEL,
  W_CORES,
  W_RULE,
  W_WIDTH,
  W_PAGES,
  N_WORDS
};
static_assert(N_WORDS <= 64, "problem_spec.given has a bit for each word");
#define BIT(index) ((uint64_t)1 << (index))

static const word words[N_WORDS] = {
    [W_B] = NUMBER(b, 0, MAX_REQUESTS, FOR_ALL),
    [W_HQ] = NUMBER(hq, 1, MAX_HEADS, FOR_ALL),
    [W_HKV] = NUMBER(hkv, 1, MAX_HEADS, FOR_ALL),
    [W_D] = NUMBER(d, 1, SPLITKV_MAX_HEAD_DIM, FOR_ALL),
    [W_DV] = NUMBER(dv, 1, SPLITKV_MAX_HEAD_DIM, FOR_ALL),
    [W_PAGE] = NUMBER(page, 1, MAX_PAGE_TOKENS, FOR_ALL),
    [W_KV] = COUNTS(kv, FOR_ALL),
    [W_Q] = COUNTS(q, FOR_CPU),
    [W_DTYPE] = CHOICE(dtype, dtype_choices, FOR_ALL),
    [W_DTYPE_Q] = CHOICE(dtype_q, dtype_choices, FOR_ALL),
    [W_DTYPE_KV] = {"dtype_kv", WORD_CHOICE, offsetof(problem_spec, dtype_kv), 0, 0,
                    kv_dtype_choices, FOR_ALL, "kv_dtype"},
    [W_DTYPE_OUT] = CHOICE(dtype_out, dtype_choices, FOR_ALL),
    [W_LAYOUT] = CHOICE(layout, layout_choices, FOR_ALL),
    [W_SPLIT] = {"split", WORD_SPLIT, 0, 1, MAX_KV_LEN, NULL, FOR_ALL, NULL},
    [W_TABLE] = CHOICE(table, table_choices, FOR_ALL),
    [W_FORMAT] = CHOICE(format, format_choices, FOR_ALL),
    [W_INDEX] = CHOICE(index, index_choices, FOR_ALL),
    [W_DATA] = CHOICE(data, data_choices, FOR_ALL),
    [W_SCALE] = {"scale", WORD_SCALE, 0, 0, 0, NULL, FOR_ALL, NULL},
    [W_SEED] = NUMBER(seed, 0, MAX_SEED, FOR_ALL),
    [W_THREADS] = NUMBER(threads, 1, SPLITKV_MAX_WORKERS, FOR_ALL),
    [W_ISA] = CHOICE(isa, isa_choices, FOR_CPU),
    [W_ARITHMETIC] = CHOICE(arithmetic, arithmetic_choices, FOR_CPU),
    [W_WINDOW] = NUMBER(window, 0, MAX_KV_LEN, FOR_ALL),
    [W_SOFTCAP] = {"softcap", WORD_SOFTCAP, 0, 0, 0, NULL, FOR_ALL, NULL},
    [W_SINKS] = FLAG(sinks, FOR_ALL),
    [W_ALIBI] = FLAG(alibi, FOR_ALL),
    [W_CAUSAL] = FLAG(causal, FOR_CPU),
    [W_WINDOW_RIGHT] = NUMBER(window_right, 0, MAX_KV_LEN, FOR_CPU),
    [W_CHUNK] = NUMBER(chunk, 0, MAX_KV_LEN, FOR_CPU),
    [W_TREE] = NUMBER(tree, 0, MAX_KV_LEN, FOR_CPU),
    [W_PREFIX] = NUMBER(prefix, 0, MAX_KV_LEN, FOR_CPU),
    [W_UNSHARED] = FLAG(unshared, FOR_CPU),
    [W_SCALES] = {"scales", WORD_SCALES, 0, 0, 0, NULL, FOR_CPU, NULL},
    [W_SCALES_DTYPE] = CHOICE(scales_dtype, scales_dtype_choices, FOR_CPU),
    [W_ZEROS] = FLAG(zeros, FOR_CPU),
    [W_MLA] = FLAG(mla, FOR_CPU),
    [W_MODEL] = {"model", WORD_MODEL, offsetof(problem_spec, model), 0, 0, NULL, FOR_CPU, NULL},
    [W_CORES] = NUMBER(cores, 1, SPLITKV_ASCEND_MAX_CORES, FOR_ASCEND),
    [W_RULE] = CHOICE(rule, rule_choices, FOR_ASCEND),
    [W_WIDTH] = NUMBER(width, 1, MAX_PAGES, FOR_ASCEND),
    [W_PAGES] = NUMBER(pages, 1, MAX_PAGES, FOR_ASCEND),
};

static int64_t *field_of(problem_spec *spec, const word *rule) {
  return (int64_t *)(void *)((char *)spec + rule->offset);
}

static int64_t value_of(const problem_spec *spec, const word *rule) {
  return *(const int64_t *)(const void *)((const char *)spec + rule->offset);
}

static request_counts *counts_of(problem_spec *spec, const word *rule) {
  return (request_counts *)(void *)((char *)spec + rule->offset);
}

static const request_counts *const_counts_of(const problem_spec *spec, const word *rule) {
  return (const request_counts *)(const void *)((const char *)spec + rule->offset);
}

static int is_given(const problem_spec *spec, int index) {
  return (spec->given & BIT(index)) != 0;
}

/* Always returns -1. Values are cut to 40 characters so that the advice stays readable. */
static int fail(text_error *error, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error->message, sizeof error->message, format, arguments);
  va_end(arguments);
  return -1;
}

void problem_spec_init(problem_spec *spec) {
  *spec = (problem_spec){.b = 1,
                         .hq = 32,
                         .hkv = 8,
                         .d = 128,
                         .dv = 128,
                         .page = 128,
                         .seed = 1,
                         .kv = {.low = 4096, .high = 4096},
                         .q = {.low = 1, .high = 1},
                         .dtype = SPLITKV_F16,
                         .cores = 24};
}

static void free_counts(request_counts *counts) {
  free(counts->runs);
  counts->runs = NULL;
  counts->n_runs = 0;
}

void problem_spec_free(problem_spec *spec) {
  free_counts(&spec->kv);
  free_counts(&spec->q);
}

/* ── values ─────────────────────────────────────────────────────────────────────────────────── */

/* Reads digits with an optional sign and suffix from *text, which moves past them. False when there
 * is no number; a number that is too large comes back as INT64_MAX. */
static int read_number(const char **text, int64_t *value) {
  const char *c = *text;
  int is_negative = *c == '-';
  c += is_negative;
  if (!isdigit((unsigned char)*c)) {
    return 0;
  }
  int64_t n = 0;
  for (; isdigit((unsigned char)*c); c++) {
    int digit = *c - '0';
    n = n > (INT64_MAX - digit) / 10 ? INT64_MAX : n * 10 + digit;
  }
  int64_t unit = *c == 'k' || *c == 'K' ? 1024 : *c == 'M' ? 1024 * 1024 : 1;
  c += unit > 1;
  n = n > INT64_MAX / unit ? INT64_MAX : n * unit;
  *value = is_negative ? -n : n;
  *text = c;
  return 1;
}

static int in_range(const word *rule, int64_t n) {
  return n >= rule->min && n <= rule->max;
}

static int fail_number(const word *rule, const char *text, text_error *error) {
  return fail(error, "%s=%.40s: must be a whole number %lld .. %lld", rule->name, text,
              (long long)rule->min, (long long)rule->max);
}

static int parse_number(problem_spec *spec, const word *rule, const char *text, text_error *error) {
  const char *end = text;
  int64_t n = 0;
  if (!read_number(&end, &n) || *end || !in_range(rule, n)) {
    return fail_number(rule, text, error);
  }
  *field_of(spec, rule) = n;
  return 0;
}

/* "a, b or c" */
static void list_choices(const choice *choices, char *text, size_t capacity) {
  size_t length = 0;
  text[0] = '\0';
  for (size_t i = 0; choices[i].name && length < capacity; i++) {
    const char *separator = i == 0 ? "" : choices[i + 1].name ? ", " : " or ";
    length +=
        (size_t)snprintf(text + length, capacity - length, "%s%s", separator, choices[i].name);
  }
}

static int choice_has(const choice *choices, const char *name) {
  for (size_t i = 0; choices[i].name; i++) {
    if (strcmp(choices[i].name, name) == 0) return 1;
  }
  return 0;
}

static int parse_choice(problem_spec *spec, const word *rule, const char *text, text_error *error) {
  const char *names[8];
  size_t n = 0;
  for (; rule->choices[n].name; n++) {
    if (strcmp(rule->choices[n].name, text) == 0) {
      *field_of(spec, rule) = rule->choices[n].value;
      return 0;
    }
    assert(n < sizeof names / sizeof names[0]);
    names[n] = rule->choices[n].name;
  }
  char list[96];
  list_choices(rule->choices, list, sizeof list);
  if (rule->choices == dtype_choices && choice_has(kv_dtype_choices, text)) {
    return fail(error, "%s=%s: must be %s; K and V alone take it: dtype_kv=%s", rule->name, text,
                list, text);
  }
  const char *near = tool_near_word(text, names, n);
  return fail(error, "%s=%.40s: must be %s%s%s%s", rule->name, text, list,
              near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

static int fail_counts(const word *rule, const char *text, text_error *error) {
  return rule == &words[W_KV]
             ? fail(error,
                    "kv=%.40s: must be a length (4096), a range (100..4000) or a list "
                    "(5,0,512x63) of 0 .. %lld tokens",
                    text, (long long)rule->max)
             : fail(error,
                    "q=%.40s: must be a number (4), a range (1..16) or a list (512,1x15) of 0 .. "
                    "%lld query rows",
                    text, (long long)rule->max);
}

static int parse_counts_list(request_counts *counts, const word *rule, const char *text,
                             text_error *error) {
  size_t n_runs = 1;
  for (const char *c = text; *c; c++) {
    n_runs += *c == ',';
  }
  counts_run *runs = calloc(n_runs, sizeof *runs);
  if (!runs) {
    return fail(error, "%s: out of memory for %zu numbers", rule->name, n_runs);
  }
  const char *c = text;
  int64_t n_requests = 0;
  for (size_t i = 0; i < n_runs; i++) {
    int ok = read_number(&c, &runs[i].count) && in_range(rule, runs[i].count);
    runs[i].n_requests = 1;
    if (ok && *c == 'x') {
      c++;
      ok = read_number(&c, &runs[i].n_requests) && runs[i].n_requests >= 1;
    }
    if (!ok || *c != (i + 1 < n_runs ? ',' : '\0')) {
      free(runs);
      return fail_counts(rule, text, error);
    }
    c++;
    if (runs[i].n_requests > MAX_REQUESTS - n_requests) {
      free(runs);
      return fail(error, "%s=%.40s: lists more than %lld requests", rule->name, text,
                  (long long)MAX_REQUESTS);
    }
    n_requests += runs[i].n_requests;
  }
  free_counts(counts);
  *counts = (request_counts){.kind = COUNTS_LIST, .runs = runs, .n_runs = n_runs};
  return 0;
}

static int parse_counts(problem_spec *spec, const word *rule, const char *text, text_error *error) {
  request_counts *counts = counts_of(spec, rule);
  if (strpbrk(text, ",x")) {
    return parse_counts_list(counts, rule, text, error);
  }
  const char *c = text;
  int64_t low = 0, high = 0;
  int ok = read_number(&c, &low);
  high = low;
  int is_range = ok && strncmp(c, "..", 2) == 0;
  if (is_range) {
    c += 2;
    ok = read_number(&c, &high);
  }
  if (!ok || *c || !in_range(rule, low) || !in_range(rule, high)) {
    return fail_counts(rule, text, error);
  }
  if (low > high) {
    return fail(error, "%s=%.40s: the first number of a range must not be above the second",
                rule->name, text);
  }
  free_counts(counts);
  *counts =
      (request_counts){.kind = is_range ? COUNTS_RANGE : COUNTS_EVERY, .low = low, .high = high};
  return 0;
}

static int parse_split(problem_spec *spec, const word *rule, const char *text, text_error *error) {
  static const struct {
    const char *name;
    splitkv_split_policy policy;
    int has_value;
  } policies[] = {{"auto", SPLITKV_SPLIT_AUTO, 0},
                  {"none", SPLITKV_SPLIT_NONE, 0},
                  {"size:", SPLITKV_SPLIT_FIXED_SIZE, 1},
                  {"count:", SPLITKV_SPLIT_FIXED_COUNT, 1}};
  for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
    size_t length = strlen(policies[i].name);
    if (strncmp(text, policies[i].name, length) != 0) {
      continue;
    }
    const char *c = text + length;
    int64_t value = 0;
    if (policies[i].has_value && (!read_number(&c, &value) || !in_range(rule, value))) {
      break;
    }
    if (*c) {
      break;
    }
    spec->split = policies[i].policy;
    spec->split_value = value;
    return 0;
  }
  return fail(error, "split=%.40s: must be auto, none, size:TOKENS or count:SPLITS, with 1 or more",
              text);
}

/* From here on a number is nearest to no finite 32-bit float: half a unit past the largest one,
 * which is below its own nine digits, 3.40282347e+38. */
#define FIRST_INFINITE 0x1.ffffffp127

/* Reads a number that is finite as a 32-bit float, and gives it as that. */
static int read_float(const char *text, double *value) {
  char *end = NULL;
  double number = isspace((unsigned char)*text) ? 0 : strtod(text, &end);
  if (!end || end == text || *end || !(fabs(number) < FIRST_INFINITE)) {
    return 0;
  }
  *value = (double)(float)number;
  return 1;
}

static int parse_softcap(problem_spec *spec, const char *text, text_error *error) {
  double cap = 0;
  if (!read_float(text, &cap) || cap < 0) {
    return fail(error, "softcap=%.40s: must be a number that is finite and 0 or more", text);
  }
  spec->softcap = cap;
  return 0;
}

static int parse_scale(problem_spec *spec, const char *text, text_error *error) {
  double scale = 0;
  if (!read_float(text, &scale) || scale == 0) {
    return fail(error, "scale=%.40s: must be a number that is finite and not 0 as a 32-bit float",
                text);
  }
  spec->scale = scale;
  return 0;
}

/* The mode that begins at *text, which moves past it; -1 where there is none. */
static int64_t read_scale_mode(const char **text) {
  size_t length = strcspn(*text, "/");
  for (const choice *c = scale_mode_choices; c->name; c++) {
    if (strlen(c->name) == length && strncmp(*text, c->name, length) == 0) {
      *text += length;
      return c->value;
    }
  }
  return -1;
}

static int parse_scales(problem_spec *spec, const char *text, text_error *error) {
  const char *c = text;
  int64_t k = read_scale_mode(&c), v = k;
  if (k >= 0 && *c == '/') {
    c++;
    v = read_scale_mode(&c);
  }
  if (k < 0 || v < 0 || *c) {
    char list[96];
    list_choices(scale_mode_choices, list, sizeof list);
    return fail(error, "scales=%.40s: must be %s, or two with a slash, for K and V", text, list);
  }
  spec->k_scales = k;
  spec->v_scales = v;
  return 0;
}

static int parse_model(problem_spec *spec, const char *text, text_error *error) {
  const char *names[64];
  size_t n = 0;
  for (; n < n_model_presets; n++) {
    if (strcmp(model_presets[n].name, text) == 0) {
      spec->model = (int64_t)n;
      return 0;
    }
    assert(n < sizeof names / sizeof names[0]);
    names[n] = model_presets[n].name;
  }
  const char *near = tool_near_word(text, names, n);
  return near ? fail(error, "model=%.40s: unknown model, did you mean %s?", text, near)
              : fail(error, "model=%.40s: unknown model, 'splitkv help plan' lists them", text);
}

/* ── words ──────────────────────────────────────────────────────────────────────────────────── */

static int is_known(const problem_spec *spec, const word *rule) {
  return (rule->devices >> spec->device & 1u) != 0;
}

int problem_has_word(const char *name) {
  for (int i = 0; i < N_WORDS; i++) {
    if (strcmp(words[i].name, name) == 0) return 1;
    if (words[i].alias != NULL && strcmp(words[i].alias, name) == 0) return 1;
  }
  return 0;
}

static int fail_unknown_word(const problem_spec *spec, const char *text, const char *name,
                             text_error *error) {
  const char *names[2 * N_WORDS];
  size_t n = 0;
  for (int i = 0; i < N_WORDS; i++) {
    if (is_known(spec, &words[i])) {
      names[n++] = words[i].name;
    }
    if (is_known(spec, &words[i]) && words[i].alias) {
      names[n++] = words[i].alias;
    }
  }
  const char *near = tool_near_word(name, names, n);
  if (near) {
    return fail(error, "%.60s: unknown word '%.30s', did you mean '%s'?", text, name, near);
  }
  return fail(error, "%.60s: unknown word '%.30s', 'splitkv help %s' lists the words", text, name,
              spec->device == PROBLEM_ASCEND ? "ascend" : "plan");
}

/* A word without '=' that is none of those that have no value. */
static int fail_bare_word(const problem_spec *spec, const char *text, text_error *error) {
  const char *names[N_WORDS];
  size_t n = 0;
  for (int i = 0; i < N_WORDS; i++) {
    if (words[i].kind == WORD_FLAG && is_known(spec, &words[i])) {
      names[n++] = words[i].name;
    }
  }
  const char *near = tool_near_word(text, names, n);
  return near ? fail(error, "%.60s: is no word of the form name=value, did you mean '%s'?", text,
                     near)
              : fail(error, "%.60s: is no word of the form name=value", text);
}

static int fail_other_device(const problem_spec *spec, const char *text, const char *name,
                             text_error *error) {
  return spec->device == PROBLEM_ASCEND
             ? fail(error,
                    "%.60s: '%s' is about the CPU's kernels; the Ascend kernel has no such "
                    "choice",
                    text, name)
             : fail(error,
                    "%.60s: '%s' is about the Ascend kernel, and known to the commands of "
                    "'splitkv ascend' only",
                    text, name);
}

static int parse_value(problem_spec *spec, const word *rule, const char *value, text_error *error) {
  switch (rule->kind) {
  case WORD_NUMBER:
    return parse_number(spec, rule, value, error);
  case WORD_CHOICE:
    return parse_choice(spec, rule, value, error);
  case WORD_COUNTS:
    return parse_counts(spec, rule, value, error);
  case WORD_SPLIT:
    return parse_split(spec, rule, value, error);
  case WORD_SCALE:
    return parse_scale(spec, value, error);
  case WORD_SOFTCAP:
    return parse_softcap(spec, value, error);
  case WORD_SCALES:
    return parse_scales(spec, value, error);
  case WORD_MODEL:
    return parse_model(spec, value, error);
  case WORD_FLAG:
    return fail(error, "%s=%.40s: is a word without a value", rule->name, value);
  }
  return -1;
}

/* `text` is one word without blanks. */
static int parse_word(problem_spec *spec, const char *text, text_error *error) {
  const char *equals = strchr(text, '=');
  for (int i = 0; i < N_WORDS && !equals; i++) {
    if (words[i].kind != WORD_FLAG || strcmp(words[i].name, text) != 0) {
      continue;
    }
    if (!is_known(spec, &words[i])) {
      return fail_other_device(spec, text, text, error);
    }
    if (is_given(spec, i)) {
      return fail(error, "%.60s: is given twice", text);
    }
    spec->given |= BIT(i);
    *field_of(spec, &words[i]) = 1;
    return 0;
  }
  if (!equals) {
    return fail_bare_word(spec, text, error);
  }
  char name[32];
  snprintf(name, sizeof name, "%.*s", (int)(equals - text < 31 ? equals - text : 31), text);
  for (int i = 0; i < N_WORDS; i++) {
    int is_alias = words[i].alias && strcmp(words[i].alias, name) == 0;
    if (strcmp(words[i].name, name) != 0 && !is_alias) {
      continue;
    }
    if (!is_known(spec, &words[i])) {
      return fail_other_device(spec, text, name, error);
    }
    if (is_given(spec, i)) {
      return fail(error, "%.60s: '%s' is given twice", text, name);
    }
    spec->given |= BIT(i);
    word as_given = words[i]; /* errors say the name that was given */
    as_given.name = is_alias ? words[i].alias : words[i].name;
    return parse_value(spec, is_alias ? &as_given : &words[i], equals + 1, error);
  }
  return fail_unknown_word(spec, text, name, error);
}

int problem_spec_parse(problem_spec *spec, const char *text, text_error *error) {
  static const char blanks[] = " \t\r\n";
  size_t size = strlen(text) + 1;
  char *copy = malloc(size);
  if (!copy) {
    return fail(error, "out of memory");
  }
  memcpy(copy, text, size);
  int status = 0;
  char *next = copy + strspn(copy, blanks);
  while (*next && status == 0) {
    char *one = next;
    next += strcspn(next, blanks);
    if (*next) {
      *next++ = '\0';
    }
    next += strspn(next, blanks);
    status = parse_word(spec, one, error);
  }
  free(copy);
  return status;
}

/* ── overriding and completing ──────────────────────────────────────────────────────────────── */

static int copy_counts(request_counts *counts, const request_counts *source) {
  counts_run *runs = NULL;
  if (source->n_runs > 0) {
    runs = malloc(source->n_runs * sizeof *runs);
    if (!runs) {
      return -1;
    }
    memcpy(runs, source->runs, source->n_runs * sizeof *runs);
  }
  free_counts(counts);
  *counts = *source;
  counts->runs = runs;
  return 0;
}

/* One word's value. Returns 0, or -1 when memory is short. */
static int copy_word(problem_spec *spec, const problem_spec *source, int index) {
  const word *rule = &words[index];
  switch (rule->kind) {
  case WORD_NUMBER:
  case WORD_CHOICE:
  case WORD_MODEL:
  case WORD_FLAG:
    *field_of(spec, rule) = value_of(source, rule);
    return 0;
  case WORD_COUNTS:
    return copy_counts(counts_of(spec, rule), const_counts_of(source, rule));
  case WORD_SPLIT:
    spec->split = source->split;
    spec->split_value = source->split_value;
    return 0;
  case WORD_SCALE:
    spec->scale = source->scale;
    return 0;
  case WORD_SOFTCAP:
    spec->softcap = source->softcap;
    return 0;
  case WORD_SCALES:
    spec->k_scales = source->k_scales;
    spec->v_scales = source->v_scales;
    return 0;
  }
  return 0;
}

/* What a model may say, and what is said of codes. */
#define MODEL_WORDS                                                                                \
  (BIT(W_HQ) | BIT(W_HKV) | BIT(W_D) | BIT(W_DV) | BIT(W_SCALE) | BIT(W_WINDOW) | BIT(W_SOFTCAP) | \
   BIT(W_SINKS) | BIT(W_ALIBI) | BIT(W_CAUSAL) | BIT(W_CHUNK) | BIT(W_MLA))
#define CODE_WORDS (BIT(W_SCALES) | BIT(W_SCALES_DTYPE) | BIT(W_ZEROS))

/* The words go back to their defaults. None of them is a list. */
static void forget_words(problem_spec *spec, uint64_t which) {
  problem_spec fresh;
  problem_spec_init(&fresh);
  for (int i = 0; i < N_WORDS; i++) {
    if (which & BIT(i)) {
      (void)copy_word(spec, &fresh, i);
    }
  }
  spec->given &= ~which;
}

/* Words of `spec` that those of `source` make void, beside the same ones. */
static void forget_replaced(problem_spec *spec, const problem_spec *source) {
  int keeps_kv = is_given(spec, W_DTYPE_KV) && problem_is_quantised(spec->dtype_kv);
  if (is_given(source, W_DTYPE)) {
    forget_words(spec, BIT(W_DTYPE_Q) | BIT(W_DTYPE_OUT) | (keeps_kv ? 0 : BIT(W_DTYPE_KV)));
  }
  if (is_given(source, W_DTYPE_KV) && !problem_is_quantised(source->dtype_kv)) {
    forget_words(spec, CODE_WORDS);
  }
  if (is_given(source, W_D) && !is_given(source, W_DV)) {
    forget_words(spec, BIT(W_DV));
  }
  if (is_given(source, W_MODEL)) {
    forget_words(spec, MODEL_WORDS);
  }
  if (source->kv.kind == COUNTS_LIST || source->q.kind == COUNTS_LIST) {
    forget_words(spec, BIT(W_B)); /* the list says how many */
  }
}

int problem_spec_override(problem_spec *spec, const problem_spec *source) {
  forget_replaced(spec, source);
  for (int i = 0; i < N_WORDS; i++) {
    if (is_given(source, i) && copy_word(spec, source, i)) {
      return -1;
    }
  }
  spec->given |= source->given;
  return 0;
}

const char *problem_spec_common_word(const problem_spec *a, const problem_spec *b) {
  for (int i = 0; i < N_WORDS; i++) {
    if (is_given(a, i) && is_given(b, i)) {
      return words[i].name;
    }
  }
  return NULL;
}

/* Words that the model has and that are not given. Returns which words have a value now that is no
 * default. */
static uint64_t apply_model(problem_spec *spec) {
  problem_spec preset;
  text_error error;
  problem_spec_init(&preset);
  int failed = problem_spec_parse(&preset, model_presets[spec->model].words, &error);
  assert(!failed && !(preset.given & ~MODEL_WORDS));
  (void)failed;
  preset.given &= ~spec->given;
  if (is_given(spec, W_D)) {
    preset.given &= ~BIT(W_DV);
  }
  if (spec->window_right > 0) {
    preset.given &= ~BIT(W_CAUSAL);
  }
  for (int i = 0; i < N_WORDS; i++) {
    if (is_given(&preset, i)) {
      (void)copy_word(spec, &preset, i);
    }
  }
  return spec->given | preset.given;
}

static int64_t count_requests(const request_counts *counts) {
  int64_t n = 0;
  for (size_t i = 0; i < counts->n_runs; i++) {
    n += counts->runs[i].n_requests;
  }
  return n;
}

/* Lists say how many requests there are. */
static int complete_requests(problem_spec *spec, text_error *error) {
  int64_t n_kv = count_requests(&spec->kv), n_q = count_requests(&spec->q);
  if (n_kv > 0 && n_q > 0 && n_kv != n_q) {
    return fail(error, "q: lists the rows of %lld requests, and kv the lengths of %lld",
                (long long)n_q, (long long)n_kv);
  }
  int64_t n = n_kv > 0 ? n_kv : n_q;
  if (n > 0 && is_given(spec, W_B) && spec->b != n) {
    return fail(error, "b=%lld: %s lists %lld %s; leave b out or make them equal",
                (long long)spec->b, n_kv > 0 ? "kv" : "q", (long long)n,
                n_kv > 0 ? "lengths" : "numbers of rows");
  }
  spec->b = n > 0 ? n : spec->b;
  return 0;
}

static void complete_scales(problem_spec *spec) {
  static const int64_t modes[] = {[SPLITKV_INT8] = SPLITKV_SCALE_TOKEN,
                                  [SPLITKV_FP8_E4M3] = SPLITKV_SCALE_TENSOR,
                                  [SPLITKV_FP8_E5M2] = SPLITKV_SCALE_TENSOR,
                                  [SPLITKV_INT4] = SPLITKV_SCALE_TOKEN};
  if (!is_given(spec, W_SCALES)) {
    spec->k_scales = spec->v_scales =
        problem_is_quantised(spec->dtype_kv) ? modes[spec->dtype_kv] : SPLITKV_SCALE_NONE;
  }
}

static int check_mla(const problem_spec *spec, text_error *error) {
  if (spec->mla && spec->dv > spec->d) {
    return fail(error, "dv=%lld: with mla V is the first dv channels of K, and K has %lld",
                (long long)spec->dv, (long long)spec->d);
  }
  if (spec->mla && spec->k_scales != spec->v_scales) {
    return fail(error,
                "scales=%s/%s: with mla K and V are the same codes, and have the same scales",
                problem_scale_mode_name(spec->k_scales), problem_scale_mode_name(spec->v_scales));
  }
  return 0;
}

int problem_spec_complete(problem_spec *spec, int64_t default_threads, text_error *error) {
  if (complete_requests(spec, error)) {
    return -1;
  }
  uint64_t has = is_given(spec, W_MODEL) ? apply_model(spec) : spec->given;
  static const struct {
    int word, source;
  } defaults[] = {{W_DV, W_D}, {W_DTYPE_Q, W_DTYPE}, {W_DTYPE_KV, W_DTYPE}, {W_DTYPE_OUT, W_DTYPE}};
  for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
    if (!(has & BIT(defaults[i].word))) {
      *field_of(spec, &words[defaults[i].word]) = value_of(spec, &words[defaults[i].source]);
    }
  }
  if (!(has & BIT(W_SCALE))) {
    spec->scale = (double)(1.0f / sqrtf((float)spec->d));
  }
  if (!(has & BIT(W_THREADS))) {
    spec->threads = default_threads;
  }
  complete_scales(spec);
  if (spec->unshared && spec->prefix == 0) {
    return fail(error, "unshared: is about the pages of a prefix, and prefix= is missing");
  }
  return check_mla(spec, error);
}

/* ── what a problem is ──────────────────────────────────────────────────────────────────────── */

int problem_is_quantised(int64_t dtype) {
  return dtype >= SPLITKV_INT8 && dtype <= SPLITKV_INT4;
}

int problem_spec_is_decode(const problem_spec *spec) {
  return spec->q.kind == COUNTS_EVERY && spec->q.low == 1;
}

const char *problem_spec_variant(const problem_spec *spec) {
  const struct {
    const char *word;
    int is_there;
  } variants[] = {
      {"window=", spec->window != 0},   {"window_right=", spec->window_right != 0},
      {"softcap=", spec->softcap != 0}, {"sinks", spec->sinks != 0},
      {"alibi", spec->alibi != 0},      {"chunk=", spec->chunk != 0},
      {"tree=", spec->tree != 0},       {"prefix=", spec->prefix != 0},
      {"mla", spec->mla != 0},          {"dtype_kv=", problem_is_quantised(spec->dtype_kv)}};
  for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
    if (variants[i].is_there) {
      return variants[i].word;
    }
  }
  return NULL;
}

/* ── back to text ───────────────────────────────────────────────────────────────────────────── */

typedef struct text_buffer {
  char *text;
  size_t length, capacity;
  int failed;
} text_buffer;

static void append(text_buffer *buffer, const char *format, ...) {
  char piece[96];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(piece, sizeof piece, format, arguments);
  va_end(arguments);
  assert(length >= 0 && (size_t)length < sizeof piece);
  size_t needed = buffer->length + (size_t)length + 1;
  if (needed > buffer->capacity) {
    size_t capacity = needed * 2;
    char *larger = realloc(buffer->text, capacity);
    if (!larger) {
      buffer->failed = 1;
      return;
    }
    buffer->text = larger;
    buffer->capacity = capacity;
  }
  memcpy(buffer->text + buffer->length, piece, (size_t)length + 1);
  buffer->length += (size_t)length;
}

static const char *choice_name(const choice *choices, int64_t value) {
  for (; choices->name; choices++) {
    if (choices->value == value) {
      return choices->name;
    }
  }
  return "?";
}

const char *problem_dtype_name(int64_t dtype) {
  return choice_name(kv_dtype_choices, dtype);
}

const char *problem_scale_mode_name(int64_t mode) {
  return choice_name(scale_mode_choices, mode);
}

const char *problem_rule_name(int64_t rule) {
  return choice_name(rule_choices, rule);
}

void problem_split_text(int64_t policy, int64_t value, char *text, size_t capacity) {
  static const char *const names[] = {[SPLITKV_SPLIT_AUTO] = "auto",
                                      [SPLITKV_SPLIT_FIXED_SIZE] = "size",
                                      [SPLITKV_SPLIT_FIXED_COUNT] = "count",
                                      [SPLITKV_SPLIT_NONE] = "none"};
  if (value > 0) {
    snprintf(text, capacity, "%s:%lld", names[policy], (long long)value);
  } else {
    snprintf(text, capacity, "%s", names[policy]);
  }
}

static void append_counts(text_buffer *buffer, const char *name, const request_counts *counts) {
  append(buffer, "%s=", name);
  if (counts->kind != COUNTS_LIST) {
    append(buffer, "%lld", (long long)counts->low);
  }
  if (counts->kind == COUNTS_RANGE) {
    append(buffer, "..%lld", (long long)counts->high);
  }
  for (size_t i = 0; i < counts->n_runs; i++) {
    append(buffer, "%s%lld", i ? "," : "", (long long)counts->runs[i].count);
    /* A list of one number needs its count, or it would read as every request's. */
    if (counts->runs[i].n_requests > 1 || counts->n_runs == 1) {
      append(buffer, "x%lld", (long long)counts->runs[i].n_requests);
    }
  }
}

static void append_word(text_buffer *buffer, const problem_spec *spec, const word *rule) {
  char split[40];
  switch (rule->kind) {
  case WORD_NUMBER:
    append(buffer, "%s=%lld", rule->name, (long long)value_of(spec, rule));
    break;
  case WORD_CHOICE:
    append(buffer, "%s=%s", rule->name, choice_name(rule->choices, value_of(spec, rule)));
    break;
  case WORD_COUNTS:
    append_counts(buffer, rule->name, const_counts_of(spec, rule));
    break;
  case WORD_SPLIT:
    problem_split_text(spec->split, spec->split_value, split, sizeof split);
    append(buffer, "split=%s", split);
    break;
  case WORD_SCALE:
    append(buffer, "scale=%.9g", spec->scale);
    break;
  case WORD_SOFTCAP:
    append(buffer, "softcap=%.9g", spec->softcap);
    break;
  case WORD_SCALES:
    append(buffer, "scales=%s", problem_scale_mode_name(spec->k_scales));
    if (spec->v_scales != spec->k_scales) {
      append(buffer, "/%s", problem_scale_mode_name(spec->v_scales));
    }
    break;
  case WORD_MODEL:
    append(buffer, "model=%s", model_presets[spec->model].name);
    break;
  case WORD_FLAG:
    append(buffer, "%s", rule->name);
    break;
  }
}

/* Words that a problem's full text leaves out: those of another device, those whose value is worked
 * out from the lengths, what is plain attention, a model, whose words stand there, and, where Q, KV
 * and out have one type, all but the one that says it. */
static int is_left_out(const problem_spec *spec, int index) {
  if (!is_known(spec, &words[index])) {
    return 1;
  }
  if (index == W_WIDTH || index == W_PAGES) {
    return !is_given(spec, index);
  }
  if (index == W_SOFTCAP) {
    return spec->softcap == 0;
  }
  if (index == W_Q) {
    return problem_spec_is_decode(spec);
  }
  if (index == W_MODEL) {
    return 1;
  }
  if (index == W_SCALES) {
    return spec->k_scales == SPLITKV_SCALE_NONE && spec->v_scales == SPLITKV_SCALE_NONE &&
           !problem_is_quantised(spec->dtype_kv);
  }
  if (index == W_WINDOW || index == W_WINDOW_RIGHT || index == W_CHUNK || index == W_TREE ||
      index == W_PREFIX || index == W_SCALES_DTYPE || words[index].kind == WORD_FLAG) {
    return value_of(spec, &words[index]) == 0;
  }
  int is_one_dtype = spec->dtype_q == spec->dtype_kv && spec->dtype_q == spec->dtype_out &&
                     spec->dtype_q == spec->dtype;
  int is_part = index == W_DTYPE_Q || index == W_DTYPE_KV || index == W_DTYPE_OUT;
  return is_one_dtype ? is_part : index == W_DTYPE;
}

char *problem_spec_format(const problem_spec *spec, int only_given) {
  text_buffer buffer = {0};
  append(&buffer, "%s", "");
  for (int i = 0; i < N_WORDS; i++) {
    if (only_given ? !is_given(spec, i) : is_left_out(spec, i)) {
      continue;
    }
    append(&buffer, "%s", buffer.length ? " " : "");
    append_word(&buffer, spec, &words[i]);
  }
  if (buffer.failed) {
    free(buffer.text);
    return NULL;
  }
  return buffer.text;
}

/* ── lengths ────────────────────────────────────────────────────────────────────────────────── */

uint64_t random_next(uint64_t *state) {
  *state += 0x9e3779b97f4a7c15u;
  uint64_t z = *state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* A number for each request; NULL when memory is short. */
static int64_t *choose_counts(const problem_spec *spec, const request_counts *counts,
                              uint64_t seed) {
  size_t n = (size_t)spec->b;
  int64_t *chosen = calloc(n ? n : 1, sizeof *chosen);
  if (!chosen) {
    return NULL;
  }
  if (counts->kind == COUNTS_LIST) {
    size_t r = 0;
    for (size_t i = 0; i < counts->n_runs; i++) {
      for (int64_t j = 0; j < counts->runs[i].n_requests; j++) {
        chosen[r++] = counts->runs[i].count;
      }
    }
    return chosen;
  }
  uint64_t span = (uint64_t)(counts->high - counts->low) + 1;
  for (size_t r = 0; r < n; r++) {
    chosen[r] = counts->low + (int64_t)(random_next(&seed) % span);
  }
  return chosen;
}

int64_t *problem_spec_lengths(const problem_spec *spec) {
  return choose_counts(spec, &spec->kv, (uint64_t)spec->seed);
}

int64_t *problem_spec_q_rows(const problem_spec *spec) {
  return choose_counts(spec, &spec->q, (uint64_t)spec->seed ^ 0x726f7773u);
}
