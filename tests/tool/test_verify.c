/* What `splitkv check` and `bench` rest on: data that nobody may read is NaN, and a result that is
 * wrong, or a byte outside of the workspace that changed, is found.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "case.h"
#include "codes.h"
#include "data.h"
#include "mask.h"
#include "rows.h"
#include "selection.h"
#include "suites.h"
#include "tool.h"
#include "verify.h"

#include "ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_checks, n_failed;

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    n_checks++;                                                                                    \
    if (!(condition)) {                                                                            \
      n_failed++;                                                                                  \
      printf("FAIL: %s:%d: %s: %s\n", __FILE__, __LINE__, now, #condition);                        \
    }                                                                                              \
  } while (0)

/* The problem at hand, for messages. */
static const char *now = "";

/* How a case is made: case_plan, or case_describe where nothing is to run. */
typedef int prepare(tool_case *c, const problem_spec *spec, const char *name);

static void begin(problem_spec *spec, tool_case *c, const char *text, prepare *prepare_case) {
  text_error error;
  now = text;
  problem_spec_init(spec);
  CHECK(problem_spec_parse(spec, text, &error) == 0);
  CHECK(problem_spec_complete(spec, 2, &error) == 0);
  CHECK(prepare_case(c, spec, "") == TOOL_OK);
  CHECK(case_build(c, "", NULL) == TOOL_OK);
}

static void end(problem_spec *spec, tool_case *c) {
  case_free(c);
  problem_spec_free(spec);
}

/* ── the data ───────────────────────────────────────────────────────────────────────────────── */

static int64_t load_id(const tool_case *c, const void *array, int64_t i) {
  return c->problem.table_type == SPLITKV_I64 ? ((const int64_t *)array)[i]
                                              : ((const int32_t *)array)[i];
}

/* First and one past the last token of a page that somebody reads. */
typedef struct reach {
  int64_t begin, end;
} reach;

static test_row row_of(const tool_case *c, int64_t r, int64_t i) {
  int64_t n_words = c->problem.tree_tokens / 64 + (c->problem.tree_tokens % 64 > 0);
  return (test_row){.kv_len = c->kv_lens[r],
                    .n_rows = rows_of_request(c, r),
                    .index = i,
                    .words = c->tensors.tree_mask
                                 ? c->tensors.tree_mask + (c->q_offsets[r] + i) * n_words
                                 : NULL};
}

/* How many rows of request r attend to a token. */
static int64_t count_readers(const tool_case *c, int64_t r, int64_t token) {
  int64_t n = 0;
  for (int64_t i = 0; i < rows_of_request(c, r); i++) {
    test_row row = row_of(c, r, i);
    n += test_attends(&c->problem, &row, token);
  }
  return n;
}

/* What of each page the rows read, found from the table and the rules of masking alone. */
static reach *reached_tokens(const tool_case *c, int64_t *n_invalid, int64_t *n_attended) {
  const splitkv_problem *p = &c->problem;
  reach *reached = calloc((size_t)p->n_pages + 1, sizeof *reached);
  int is_csr = p->table_format == SPLITKV_TABLE_CSR;
  *n_invalid = *n_attended = 0;
  for (int64_t r = 0; reached && r < c->batch.n_requests; r++) {
    int64_t first = is_csr ? load_id(c, c->table_offsets, r) : r * p->table_width;
    int64_t last = is_csr ? load_id(c, c->table_offsets, r + 1) : (r + 1) * p->table_width;
    for (int64_t i = first; i < last; i++) {
      int64_t id = load_id(c, c->block_table, i), before = (i - first) * p->page_size_tokens;
      int is_valid = id >= 0 && id < p->n_pages, is_read = 0;
      *n_invalid += !is_valid;
      for (int64_t token = 0; token < p->page_size_tokens; token++) {
        int64_t n = count_readers(c, r, before + token);
        *n_attended += n;
        is_read |= n > 0;
        if (n == 0 || !is_valid) continue;
        if (reached[id].end == 0 || token < reached[id].begin) reached[id].begin = token;
        if (token + 1 > reached[id].end) reached[id].end = token + 1;
      }
      CHECK(is_read == is_valid);
    }
  }
  return reached;
}

static int row_is_nan(const tool_case *c, const zoned *cache, int64_t row, int64_t channels) {
  int n_nan = 0;
  for (int64_t ch = 0; ch < channels; ch++) {
    n_nan += isnan(ref_load(c->problem.dtype_kv, cache->data, row * channels + ch)) != 0;
  }
  return n_nan == 0 ? 0 : n_nan == channels ? 1 : -1;
}

static void check_data(const char *text) {
  problem_spec spec;
  tool_case c;
  begin(&spec, &c, text, case_describe);
  const splitkv_problem *p = &c.problem;
  int64_t n_invalid = 0, n_attended = 0, n_unique = 0;
  reach *reached = reached_tokens(&c, &n_invalid, &n_attended);
  CHECK(reached != NULL);
  CHECK(n_attended == c.n_attended);
  CHECK(n_invalid >= c.batch.n_requests);
  for (int64_t page = 0; reached && page < p->n_pages; page++) {
    n_unique += reached[page].end - reached[page].begin;
    for (int64_t token = 0; token < p->page_size_tokens; token++) {
      for (int64_t g = 0; g < p->n_heads_kv; g++) {
        int64_t row = spec.layout == SPLITKV_LAYOUT_HND
                          ? (page * p->n_heads_kv + g) * p->page_size_tokens + token
                          : (page * p->page_size_tokens + token) * p->n_heads_kv + g;
        int is_hidden = token < reached[page].begin || token >= reached[page].end;
        CHECK(row_is_nan(&c, &c.kv[KV_K], row, p->head_dim) == is_hidden);
        CHECK(spec.mla || row_is_nan(&c, &c.kv[KV_V], row, p->head_dim_v) == is_hidden);
      }
    }
  }
  CHECK(n_unique == c.n_unique_tokens);
  free(reached);
  end(&spec, &c);
}

/* ── codes ──────────────────────────────────────────────────────────────────────────────────── */

/* What a code stands for, before zero point and scale. */
static double decode(splitkv_dtype dtype, const uint8_t *codes, int64_t i) {
  int code = dtype == SPLITKV_INT4 ? codes[i / 2] >> (i % 2 * 4) & 15 : codes[i];
  int is_e4m3 = dtype == SPLITKV_FP8_E4M3, bits = is_e4m3 ? 3 : 2, bias = is_e4m3 ? 7 : 15;
  int fraction = code & ((1 << bits) - 1), exponent = (code & 0x7f) >> bits;
  double sign = code & 0x80 ? -1 : 1;
  if (dtype == SPLITKV_INT8) return (int8_t)code;
  if (dtype == SPLITKV_INT4) return code;
  if (is_e4m3 ? (code & 0x7f) == 0x7f : exponent == 31) return is_e4m3 || fraction ? NAN : INFINITY;
  return exponent == 0 ? sign * ldexp(fraction, 1 - bias - bits)
                       : sign * ldexp(fraction + (1 << bits), exponent - bias - bits);
}

static int code_of(splitkv_dtype dtype, double value, int zero) {
  uint8_t code = 0;
  codes_store(dtype, &code, 0, value, zero);
  return code;
}

/* Each number of the format keeps its code; halfway between two the even one is taken. */
static void check_fp8(splitkv_dtype dtype, int last) {
  for (int code = 0; code < 256; code++) {
    const uint8_t a = (uint8_t)code, b = (uint8_t)(code + 1);
    double x = decode(dtype, &a, 0), y = decode(dtype, &b, 0), middle = (x + y) / 2;
    if ((code & 0x7f) > last) continue;
    CHECK(code_of(dtype, x, 0) == code);
    if ((code & 0x7f) == last) continue;
    CHECK(code_of(dtype, middle, 0) == (code % 2 ? code + 1 : code));
    CHECK(code_of(dtype, middle + (x - middle) * 0x1p-20, 0) == code);
    CHECK(code_of(dtype, middle + (y - middle) * 0x1p-20, 0) == code + 1);
  }
  CHECK(code_of(dtype, 1e9, 0) == last && code_of(dtype, -INFINITY, 0) == (last | 0x80));
  CHECK((code_of(dtype, NAN, 0) & 0x7f) == 0x7f);
}

static void check_codes(void) {
  now = "codes";
  check_fp8(SPLITKV_FP8_E4M3, 0x7e);
  check_fp8(SPLITKV_FP8_E5M2, 0x7b);
  for (int zero = -3; zero <= 9; zero += 3) {
    for (double x = -150; x <= 150; x += 0.25) {
      double nearest = rint(x) + zero; /* ties to even before the zero point */
      CHECK((int8_t)code_of(SPLITKV_INT8, x, zero) == (int)fmax(-128, fmin(127, nearest)));
      CHECK(code_of(SPLITKV_INT4, x, zero) == (int)fmax(0, fmin(15, nearest)));
    }
  }
  uint8_t two = 0xff;
  codes_store(SPLITKV_INT4, &two, 1, 3, 8);
  CHECK(two == 0xbf);
  codes_store(SPLITKV_INT4, &two, 0, -6, 8);
  CHECK(two == 0xb2);
}

/* Where the header says that the scale of an element lies. */
static int64_t scale_place(const tool_case *c, int is_k, int64_t page, int64_t token, int64_t g,
                           int64_t ch) {
  const splitkv_problem *p = &c->problem;
  int64_t channels = is_k ? p->head_dim : p->head_dim_v, heads = p->n_heads_kv;
  int64_t row = p->layout == SPLITKV_LAYOUT_HND ? (page * heads + g) * p->page_size_tokens + token
                                                : (page * p->page_size_tokens + token) * heads + g;
  switch (is_k ? p->k_scale_mode : p->v_scale_mode) {
  case SPLITKV_SCALE_HEAD:
    return g;
  case SPLITKV_SCALE_CHANNEL:
    return g * channels + ch;
  case SPLITKV_SCALE_TOKEN:
    return row;
  case SPLITKV_SCALE_GROUP32:
    return row * ((channels + 31) / 32) + ch / 32;
  case SPLITKV_SCALE_GROUP64:
    return row * ((channels + 63) / 64) + ch / 64;
  default:
    return 0;
  }
}

/* One element of K or V; *scale is what it was multiplied by. */
static double element(const tool_case *c, int is_k, int64_t page, int64_t token, int64_t g,
                      int64_t ch, double *scale) {
  const splitkv_problem *p = &c->problem;
  const void *scales = is_k ? c->tensors.k_scales : c->tensors.v_scales;
  const int8_t *zeros = is_k ? c->tensors.k_zeros : c->tensors.v_zeros;
  int64_t channels = is_k || c->spec->mla ? p->head_dim : p->head_dim_v;
  int64_t i = case_kv_row(c, page, token, g) * channels + ch;
  int64_t place = scale_place(c, is_k, page, token, g, ch);
  *scale = scales ? ref_load(p->dtype_scales, scales, place) : 1;
  if (!problem_is_quantised(p->dtype_kv)) {
    return ref_load(p->dtype_kv, is_k ? c->tensors.k : c->tensors.v, i);
  }
  double zero = zeros ? zeros[place] : p->dtype_kv == SPLITKV_INT4 ? 8 : 0;
  return *scale * (decode(p->dtype_kv, is_k ? c->tensors.k : c->tensors.v, i) - zero);
}

/* How far a code may be from the number that it was made of. */
static double code_error(const tool_case *c, double value, double scale) {
  int is_int = c->problem.dtype_kv == SPLITKV_INT8 || c->problem.dtype_kv == SPLITKV_INT4;
  /* A zero point is rounded, too, and then the largest number may saturate. */
  if (is_int) return (c->spec->zeros ? 1.01 : 0.501) * scale;
  return fabs(value) * (c->problem.dtype_kv == SPLITKV_FP8_E4M3 ? 0x1.01p-4 : 0x1.01p-3) +
         scale * 0x1p-10;
}

/* Codes and scales are those of the same problem's numbers; what nobody reads is NaN where it can
 * be. */
static void check_code_data(const char *words, const char *code_words) {
  problem_spec spec, plain_spec;
  tool_case c, plain;
  char text[200];
  snprintf(text, sizeof text, "%s dtype_kv=f32", words);
  begin(&plain_spec, &plain, text, case_describe);
  snprintf(text, sizeof text, "%s %s", words, code_words);
  begin(&spec, &c, text, case_describe);
  const splitkv_problem *p = &c.problem;
  for (int64_t i = 0; i < p->n_pages * p->page_size_tokens * p->n_heads_kv; i++) {
    int64_t g = i % p->n_heads_kv, token = i / p->n_heads_kv % p->page_size_tokens;
    int64_t page = i / p->n_heads_kv / p->page_size_tokens;
    int is_read = token >= c.page_begin[page] && token < c.page_tokens[page];
    for (int64_t ch = 0; ch < p->head_dim + p->head_dim_v; ch++) {
      int is_k = ch < p->head_dim;
      double scale = 0, ignored = 0;
      double got = element(&c, is_k, page, token, g, is_k ? ch : ch - p->head_dim, &scale);
      double number = element(&plain, is_k, page, token, g, is_k ? ch : ch - p->head_dim, &ignored);
      splitkv_scale_mode mode = is_k ? p->k_scale_mode : p->v_scale_mode;
      int can_be_nan = p->dtype_kv == SPLITKV_FP8_E4M3 || p->dtype_kv == SPLITKV_FP8_E5M2 ||
                       mode >= SPLITKV_SCALE_TOKEN;
      number += spec.zeros ? 0.5 + 0.25 * (double)(g % 3) : 0;
      CHECK(is_read ? fabs(got - number) <= code_error(&c, number, scale)
                    : isnan(got) == can_be_nan);
    }
  }
  end(&spec, &c);
  end(&plain_spec, &plain);
}

static void check_all_code_data(void) {
  static const char *const codes[] = {
      "kv_dtype=int8 scales=tensor",         "kv_dtype=int8 scales=head/token",
      "kv_dtype=int8 scales=channel",        "kv_dtype=int8 scales=group32/group64 zeros",
      "kv_dtype=int4 scales=none",           "kv_dtype=int4 scales=token scales_dtype=f16",
      "kv_dtype=int4 scales=channel zeros",  "kv_dtype=int4 scales=head zeros",
      "kv_dtype=fp8_e4m3 scales=none",       "kv_dtype=fp8_e4m3 scales=tensor/channel",
      "kv_dtype=fp8_e5m2 scales=token/head", "kv_dtype=fp8_e5m2 scales=group64"};
  static const char *const shapes[] = {"kv=5,0,17,33 hq=4 hkv=2 d=70 dv=34 page=4 table=shuffled",
                                       "kv=40,9 hq=3 hkv=3 d=36 page=7 layout=hnd window=20"};
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
    check_code_data(shapes[i % 2], codes[i]);
    check_code_data(shapes[(i + 1) % 2], codes[i]);
  }
  const char *mla = "kv=40,9 hq=4 hkv=2 d=72 dv=40 mla page=7 layout=hnd table=shuffled";
  check_code_data(mla, "kv_dtype=int8 scales=channel");
  check_code_data(mla, "kv_dtype=int8 scales=group32 zeros");
  check_code_data(mla, "kv_dtype=fp8_e4m3 scales=group64");
  check_code_data(mla, "kv_dtype=int4 scales=token");
}

/* ── the verdict ────────────────────────────────────────────────────────────────────────────── */

/* Runs the case: a right result passes. */
static void run_right(tool_case *c, oracle *o) {
  splitkv_error error = {0};
  case_poison(c);
  CHECK(case_run(c, NULL, &error) == SPLITKV_OK);
  CHECK(oracle_compute(o, c, "", NULL) == TOOL_OK);
  verdict v = oracle_compare(o, c);
  CHECK(v.pass);
  CHECK(v.worst <= 1 && v.reason[0] == '\0');
  CHECK(v.worst > 0);
}

static void check_found(const tool_case *c, const oracle *o, const char *reason) {
  verdict v = oracle_compare(o, c);
  CHECK(!v.pass);
  CHECK(strstr(v.reason, reason) != NULL);
}

/* A byte changed outside, and back. */
static void check_zone_byte(const tool_case *c, const oracle *o, const zoned *buffer,
                            ptrdiff_t offset, const char *name) {
  unsigned char old = buffer->data[offset];
  buffer->data[offset] = 0;
  check_found(c, o, name);
  buffer->data[offset] = old;
  CHECK(oracle_compare(o, c).pass);
}

static void check_zones(const tool_case *c, const oracle *o) {
  const struct {
    const zoned *buffer;
    const char *name;
  } all[] = {{&c->workspace, "workspace"}, {&c->out, "out"}, {&c->lse, "lse"}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    ptrdiff_t size = (ptrdiff_t)all[i].buffer->size_bytes;
    check_zone_byte(c, o, all[i].buffer, -1, all[i].name);
    check_zone_byte(c, o, all[i].buffer, size, all[i].name);
    check_zone_byte(c, o, all[i].buffer, size + 999, all[i].name);
  }
}

/* Each channel of out and each lse moved by a little more than its bound is found. */
static void check_values(const tool_case *c, const oracle *o) {
  const splitkv_problem *p = &c->problem;
  int64_t n_rows = c->n_rows * p->n_heads_q;
  double step = strcmp(c->info.arithmetic, "f32") == 0 ? 0.02 : 0.1;
  for (int64_t i = 0; i < n_rows * p->head_dim_v; i += 7) {
    double old = ref_load(p->dtype_out, c->out.data, i);
    ref_store(p->dtype_out, c->out.data, i, old + step * (1 + fabs(old)));
    check_found(c, o, "out of bounds");
    ref_store(p->dtype_out, c->out.data, i, NAN);
    check_found(c, o, "out of bounds");
    ref_store(p->dtype_out, c->out.data, i, old);
  }
  float *lse = c->tensors.lse;
  for (int64_t row = 0; row < n_rows; row++) {
    float old = lse[row];
    lse[row] = isinf(old) ? 0 : old + 1e-3f;
    check_found(c, o, "out of bounds");
    lse[row] = old;
  }
  CHECK(oracle_compare(o, c).pass);
}

/* The contract that is checked before the run, and what it says when it is broken. */
static void check_contract(tool_case *c) {
  char reason[160] = "";
  CHECK(verify_memory_contract(c, NULL, reason, sizeof reason) == 1);
  size_t bound = c->bound_bytes, stated = c->info.workspace_bytes;
  if (stated == 0) {
    return;
  }
  c->bound_bytes = stated - 1;
  CHECK(verify_memory_contract(c, NULL, reason, sizeof reason) == 0);
  CHECK(strstr(reason, "bound") != NULL);
  c->bound_bytes = bound;
  /* A plan that said one byte too many: one byte less is then accepted, which is wrong. */
  c->info.workspace_bytes = stated + 1;
  c->bound_bytes = stated + 1;
  CHECK(verify_memory_contract(c, NULL, reason, sizeof reason) == 0);
  CHECK(strstr(reason, "one byte short") != NULL);
  c->info.workspace_bytes = stated;
  c->bound_bytes = bound;
}

static void check_verdict(const char *text) {
  problem_spec spec;
  tool_case c;
  oracle o = {0};
  begin(&spec, &c, text, case_plan);
  run_right(&c, &o);
  check_zones(&c, &o);
  check_values(&c, &o);
  check_contract(&c);
  oracle_free(&o);
  end(&spec, &c);
}

/* ── suites ─────────────────────────────────────────────────────────────────────────────────── */

static int is_in(const char *const *list, size_t n, const char *name) {
  for (size_t i = 0; i < n; i++) {
    if (strcmp(list[i], name) == 0) {
      return 1;
    }
  }
  return 0;
}

/* Names are unique, texts are right, and each plan stays below 6 GB of tensors in f32. */
static void check_suites(void) {
  for (size_t i = 0; i < n_suites; i++) {
    const char *names[128];
    CHECK(suites[i].n_cases <= 128);
    for (size_t j = 0; j < suites[i].n_cases; j++) {
      problem_spec spec, words;
      text_error error;
      tool_case c;
      now = suites[i].cases[j].name;
      CHECK(!is_in(names, j, now));
      names[j] = now;
      const int is_cpu = (suites[i].cases[j].uses & ~(unsigned)SUITE_ASCEND) != 0;
      problem_spec_init(&spec);
      problem_spec_init(&words);
      spec.device = is_cpu ? PROBLEM_CPU : PROBLEM_ASCEND; /* whose words its text has */
      CHECK(problem_spec_parse(&spec, suites[i].cases[j].problem, &error) == 0);
      CHECK(problem_spec_parse(&words, "dtype=f32", &error) == 0);
      CHECK(problem_spec_override(&spec, &words) == 0);
      CHECK(problem_spec_complete(&spec, 2, &error) == 0);
      CHECK(spec.dtype_q == SPLITKV_F32);
      CHECK(spec.dtype_kv == SPLITKV_F32 || problem_is_quantised(spec.dtype_kv));
      CHECK(case_plan(&c, &spec, "") == TOOL_OK);
      CHECK(case_memory_bytes(&c) < (size_t)6 << 30);
      case_free(&c);
      problem_spec_free(&spec);
      problem_spec_free(&words);
    }
  }
}

/* A check that failed is not hidden by a later case that cannot run. */
static void check_exit_status(void) {
  now = "exit status";
  CHECK(tool_exit_status(0, TOOL_OK) == TOOL_OK);
  CHECK(tool_exit_status(0, TOOL_USAGE) == TOOL_USAGE);
  CHECK(tool_exit_status(0, TOOL_UNSUPPORTED) == TOOL_UNSUPPORTED);
  CHECK(tool_exit_status(2, TOOL_OK) == TOOL_FAILED);
  CHECK(tool_exit_status(1, TOOL_USAGE) == TOOL_FAILED);
  CHECK(tool_exit_status(1, TOOL_UNSUPPORTED) == TOOL_FAILED);
}

int main(void) {
  static const char *const data[] = {
      "kv=5,0,17,32 hq=4 hkv=2 d=8 page=4",
      "kv=5,0,17,32 hq=4 hkv=2 d=8 page=4 table=shuffled layout=hnd",
      "kv=5,0,17,33 hq=4 hkv=2 d=8 dv=5 page=7 table=shared format=csr index=i64 dtype=f32",
      "kv=70,1,0,64 hq=2 hkv=1 d=16 page=16 table=shared format=csr data=adversarial dtype=bf16",
      "b=40 kv=0..90 hq=2 hkv=2 d=3 page=1 table=shuffled data=adversarial",
      "kv=5,0,17,33 hq=4 hkv=2 d=8 page=4 window=6 table=shuffled format=csr sinks",
      "b=9 kv=0..90 hq=2 hkv=2 d=3 page=7 window=20 table=shared layout=hnd alibi",
      "kv=5,0,17,33,40 q=1,3,0,9,50 hq=4 hkv=2 d=8 page=4 table=shuffled",
      "kv=5,0,17,33,40 q=1,3,0,9,50 hq=4 hkv=2 d=8 page=4 causal window=6 format=csr",
      "kv=5,0,17,33,40 q=1,3,2,9,50 hq=4 hkv=2 d=8 page=3 window_right=3 window=5 table=shuffled",
      "kv=5,0,17,33,40 q=1,3,2,9,50 hq=4 hkv=2 d=8 page=3 causal chunk=8 table=shared layout=hnd",
      "b=20 kv=0..40 q=0..9 hq=2 hkv=2 d=3 page=5 chunk=7 window=3",
      "kv=5,0,77,90,80 q=1,3,2,70,9 hq=4 hkv=2 d=8 page=5 tree=66 causal table=shuffled",
      "kv=300,5,64,80 q=64,4,64,70 hq=2 hkv=1 d=8 page=16 tree=64 causal window=20",
      "b=5 kv=100 q=6 hq=2 hkv=1 d=8 page=16 tree=9 causal chunk=98",
      "b=5 kv=0..50 q=6 hq=2 hkv=2 d=8 dv=5 mla page=16 layout=hnd table=shuffled",
      "kv=20,5,0,16,33 hq=4 hkv=2 d=8 page=4 prefix=17 table=shuffled",
      "b=6 kv=10..40 q=0..9 hq=2 hkv=1 d=8 page=3 prefix=12 causal window=15 format=csr",
  };
  static const char *const runs[] = {
      "kv=5,0,17 hq=4 hkv=2 d=16 page=4 split=size:4 dtype=f32",
      "kv=5,0,170 hq=4 hkv=2 d=16 page=7 split=count:3 table=shared",
      "kv=300,1 hq=6 hkv=2 d=20 dv=12 page=16 dtype=bf16 data=adversarial split=size:64",
      "kv=3000,10 hq=2 hkv=1 d=16 dtype_q=f32 dtype_kv=f16 dtype_out=f32 threads=3",
      "kv=300,1 hq=6 hkv=2 d=20 dv=12 page=16 dtype=bf16 arithmetic=bf16 split=size:64",
      "kv=300,0,9 hq=4 hkv=2 d=16 page=16 window=150 softcap=20 sinks alibi split=size:64",
      "kv=300,0,9 hq=4 hkv=2 d=16 page=16 window=33 sinks dtype=bf16 arithmetic=bf16",
      "kv=300,0,9,40 q=3,2,0,7 hq=4 hkv=2 d=16 page=16 causal table=shuffled",
      "kv=300,0,9,40 q=3,2,12,7 hq=4 hkv=2 d=16 page=16 window=5 window_right=4 split=size:64",
      "kv=300,150,140 hq=4 hkv=2 d=16 page=16 prefix=128 table=shuffled",
      "kv=300,70,90 q=3,2,9 hq=4 hkv=2 d=16 causal kv_dtype=int8 scales=token split=size:64",
      "kv=300,70 hq=4 hkv=2 d=20 page=16 kv_dtype=int4 zeros scales=channel/group32 dtype=f32",
      "kv=300,70 hq=4 hkv=2 d=20 page=16 kv_dtype=fp8_e5m2 scales=head data=adversarial",
      "kv=300,70 q=8,70 hq=4 hkv=1 d=16 dv=9 page=16 causal tree=65 chunk=90 mla dtype=f32",
  };
  for (size_t i = 0; i < sizeof data / sizeof data[0]; i++) {
    check_data(data[i]);
  }
  for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
    check_verdict(runs[i]);
  }
  check_codes();
  check_all_code_data();
  check_suites();
  check_exit_status();
  printf("%d of %d checks passed\n", n_checks - n_failed, n_checks);
  return n_failed > 0 || n_checks < 2000;
}
