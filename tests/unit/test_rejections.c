/* Every status that the library can return is returned here, with the right words.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "reject.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool seen[SPLITKV_STATUS_END + 1];

splitkv_error reject_error(void) {
  splitkv_error error;
  memset(&error, 0x7b, sizeof error);
  return error;
}

/* A sentence that names the field and the value: as a number, flags in hexadecimal, kernel sets by
 * their name, and the dtype that a set does not do by its name alone. */
static bool is_sentence(const splitkv_error *error, const char *field, int64_t value) {
  static const char *const sets[] = {"auto", "scalar",     "avx2",      "avx512",
                                     "neon", "avx512bf16", "avx512vnni"};
  static const char *const endings[] = {" f32",      " f16",      " bf16", " int8",
                                        " fp8_e4m3", " fp8_e5m2", " int4"};
  if (error->status == SPLITKV_ERROR_ISA_DTYPE) {
    return value >= 0 && value < 7 && memchr(error->message, 0, sizeof error->message) &&
           strstr(error->message, field) && strstr(error->message, endings[value]);
  }
  char number[32], hex[32];
  snprintf(number, sizeof number, "%" PRId64, value);
  snprintf(hex, sizeof hex, "0x%" PRIx64, (uint64_t)value);
  const bool has_name = strcmp(field, "problem.isa") == 0 && value > 0 && value < 7;
  return memchr(error->message, 0, sizeof error->message) && strstr(error->message, field) &&
         (value == 0 || strstr(error->message, number) || strstr(error->message, hex) ||
          (has_name && strstr(error->message, sets[value]))) &&
         strlen(error->message) > strlen(field) + 4;
}

bool reject_is(splitkv_status got, const splitkv_error *error, splitkv_status want,
               const char *field, int64_t value, const char *file, int line) {
  if (!check_that(got == want, file, line, "status", "%s instead of %s for %s",
                  splitkv_status_name(got), splitkv_status_name(want), field))
    return false;
  seen[want] = true;
  return check_that(error->status == want, file, line, "error.status", "%d", (int)error->status) &&
         check_that(
             memchr(error->field, 0, sizeof error->field) && strcmp(error->field, field) == 0, file,
             line, "error.field", "\"%.47s\" instead of \"%s\"", error->field, field) &&
         check_that(error->value == value, file, line, "error.value",
                    "%s: %" PRId64 " instead of %" PRId64, field, error->value, value) &&
         check_that(is_sentence(error, field, value), file, line, "error.message", "%.199s",
                    error->message);
}

bool reject_seen(splitkv_status status) {
  return seen[status];
}

splitkv_problem reject_good_problem(void) {
  splitkv_problem p;
  splitkv_problem_init(&p);
  p.n_heads_q = 6;
  p.n_heads_kv = 2;
  p.head_dim = 20;
  p.head_dim_v = 20;
  p.page_size_tokens = 16;
  p.n_pages = 5;
  p.table_width = 4;
  return p;
}

splitkv_batch reject_good_batch(void) {
  static const int64_t lens[] = {40, 3};
  splitkv_batch b;
  splitkv_batch_init(&b);
  b.n_requests = 2;
  b.kv_lens = lens;
  b.kv_lens_type = SPLITKV_I64;
  b.n_workers = 3;
  return b;
}

/* Whether this test can see it: a set that does only some dtypes is not in all builds, and what a
 * launch runs into is in tests/ascend. */
static bool is_reachable(splitkv_status status) {
  if (status >= SPLITKV_ERROR_ASCEND_BOUNDS && status <= SPLITKV_ERROR_ASCEND_RUNTIME) return false;
  if (status != SPLITKV_ERROR_ISA_DTYPE) return status != SPLITKV_OK;
  for (int64_t i = 0; i < splitkv_kernel_set_count(); ++i) {
    splitkv_kernel_set_info info;
    info.struct_size = sizeof info;
    if (CHECK(splitkv_kernel_set_get(i, &info, NULL) == SPLITKV_OK) &&
        strcmp(info.arithmetic, "bf16") == 0)
      return true;
  }
  return false;
}

/* Names and texts of the statuses are there and differ. */
static void names(void) {
  static const splitkv_status all[] = {
#define ENTRY(name, value, text) name,
      SPLITKV_STATUS_LIST(ENTRY)
#undef ENTRY
  };
  static const char *const spelled[] = {
#define ENTRY(name, value, text) #name,
      SPLITKV_STATUS_LIST(ENTRY)
#undef ENTRY
  };
  const size_t n = sizeof all / sizeof all[0];
  for (size_t i = 0; i < n; ++i) {
    CHECK(strcmp(splitkv_status_name(all[i]), spelled[i]) == 0);
    CHECK(strlen(splitkv_status_text(all[i])) > 1);
    for (size_t j = 0; j < i; ++j)
      CHECK(all[i] != all[j] &&
            strcmp(splitkv_status_text(all[i]), splitkv_status_text(all[j])) != 0);
    CHECK_MSG(!is_reachable(all[i]) || reject_seen(all[i]), "%s was never returned",
              splitkv_status_name(all[i]));
  }
  CHECK(strcmp(splitkv_status_name((splitkv_status)9999), "unknown status") == 0);
  CHECK(strcmp(splitkv_status_text(SPLITKV_STATUS_END), "unknown status") == 0);
}

int main(void) {
  reject_problems();
  reject_batches();
  reject_limits();
  reject_plan_queries();
  reject_allocators();
  reject_runs();
  reject_tables();
  reject_merges();
  reject_threads();
  reject_ascend();
  reject_appends();
  names();
  return check_report("rejections");
}
