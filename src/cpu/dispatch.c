/* The table of kernel sets and the choice among them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "dispatch.h"

#include <splitkv/probe.h>

#include "../error.h"
#include "isa.h"

typedef struct entry {
  const spl_kernel_set *set;
  const char *needs;
} entry;

static const entry entries[] = {
#define SPL_KERNEL_SET(name, text) {&spl_kernels_##name, text},
#include "kernels.def"
#undef SPL_KERNEL_SET
};
enum { N_ENTRIES = sizeof entries / sizeof entries[0] };

static const char *const isa_names[] = {"auto", "scalar",     "avx2",      "avx512",
                                        "neon", "avx512bf16", "avx512vnni"};

static const char *const dtype_names[SPL_N_DTYPES] = {"f32",      "f16",      "bf16", "int8",
                                                      "fp8_e4m3", "fp8_e5m2", "int4"};

static uint32_t missing_bits(const spl_kernel_set *set) {
  return set->cpu_bits & ~spl_cpu_bits();
}

/* Why a set cannot be taken; SPLITKV_OK if it can. What the problem alone decides comes first, so
 * that it is refused in the same words on every CPU. */
static splitkv_status check_set(const entry *e, splitkv_arithmetic allowed, splitkv_dtype dtype_kv,
                                int has_plain_codes, splitkv_error *error) {
  const spl_kernel_set *set = e->set;
  if (set->arithmetic_class != SPLITKV_ARITHMETIC_F32 && set->arithmetic_class != (int)allowed) {
    return spl_fail(error, SPLITKV_ERROR_ARITHMETIC, "problem.arithmetic", (int)allowed,
                    "kernel set %s is of the class %s, which the problem does not allow", set->name,
                    set->arithmetic);
  }
  if (set->attend[dtype_kv] == NULL) {
    return spl_fail(error, SPLITKV_ERROR_ISA_DTYPE, "problem.dtype_kv", (int)dtype_kv,
                    "kernel set %s has no kernels for KV in %s", set->name, dtype_names[dtype_kv]);
  }
  if (set->needs_plain_codes && !has_plain_codes) {
    return spl_fail(error, SPLITKV_ERROR_ISA_DTYPE, "problem.dtype_kv", (int)dtype_kv,
                    "kernel set %s has no kernels for zero points, scales of groups and scales of "
                    "channels of K with KV in %s",
                    set->name, dtype_names[dtype_kv]);
  }
  const uint32_t missing = missing_bits(set);
  if (missing == 0) return SPLITKV_OK;
  return spl_fail(error, SPLITKV_ERROR_ISA_UNAVAILABLE, "problem.isa", set->isa,
                  "%s needs %s, this CPU lacks %s", set->name, e->needs,
                  spl_cpu_bits_text(missing));
}

splitkv_status spl_choose_kernels(splitkv_isa isa, splitkv_arithmetic allowed,
                                  splitkv_dtype dtype_kv, int has_plain_codes,
                                  const spl_kernel_set **kernels, splitkv_error *error) {
  const int number = (int)isa;
  if (number < 0 || number >= (int)(sizeof isa_names / sizeof isa_names[0])) {
    return spl_fail(error, SPLITKV_ERROR_ISA_UNKNOWN, "problem.isa", number,
                    "%d is no instruction set", number);
  }
  for (int i = 0; i < N_ENTRIES; i++) {
    const spl_kernel_set *set = entries[i].set;
    const int by_name = isa != SPLITKV_ISA_AUTO;
    if (by_name && set->isa != number) continue;
    const splitkv_status status =
        check_set(&entries[i], allowed, dtype_kv, has_plain_codes, by_name ? error : NULL);
    if (status != SPLITKV_OK && !by_name) continue;
    if (status == SPLITKV_OK) *kernels = set;
    return status;
  }
  return spl_fail(error, SPLITKV_ERROR_ISA_UNAVAILABLE, "problem.isa", number,
                  "%s is not in this build", isa_names[number]);
}

int64_t splitkv_kernel_set_count(void) {
  return N_ENTRIES;
}

splitkv_status splitkv_kernel_set_get(int64_t index, splitkv_kernel_set_info *info,
                                      splitkv_error *error) {
  if (info == NULL) return spl_fail_null(error, "info");
  const splitkv_status status = spl_check_struct_size(error, "info.struct_size", info->struct_size,
                                                      sizeof *info, sizeof *info);
  if (status != SPLITKV_OK) return status;
  if (index < 0 || index >= N_ENTRIES) {
    return spl_fail(error, SPLITKV_ERROR_INDEX, "index", index, "%lld is outside 0..%d",
                    (long long)index, N_ENTRIES - 1);
  }
  const spl_kernel_set *best = NULL;
  (void)spl_choose_kernels(SPLITKV_ISA_AUTO, SPLITKV_ARITHMETIC_F32, SPLITKV_F32, 1, &best, NULL);
  const spl_kernel_set *set = entries[index].set;
  const splitkv_kernel_set_info full = {.struct_size = sizeof full,
                                        .name = set->name,
                                        .isa = (splitkv_isa)set->isa,
                                        .arithmetic = set->arithmetic,
                                        .needs = entries[index].needs,
                                        .missing = spl_cpu_bits_text(missing_bits(set)),
                                        .is_usable = missing_bits(set) == 0,
                                        .is_default = set == best};
  spl_export(info, &full, info->struct_size);
  return SPLITKV_OK;
}

/* A set by name whatever its class, the default one for AUTO; NULL if it is not usable here. */
static const spl_kernel_set *set_to_probe(splitkv_isa isa) {
  static const struct {
    splitkv_arithmetic allowed;
    splitkv_dtype dtype;
  } classes[] = {{SPLITKV_ARITHMETIC_F32, SPLITKV_F32},
                 {SPLITKV_ARITHMETIC_BF16, SPLITKV_BF16},
                 {SPLITKV_ARITHMETIC_INT8, SPLITKV_INT8}};
  const spl_kernel_set *set = NULL;
  for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
    if (spl_choose_kernels(isa, classes[i].allowed, classes[i].dtype, 1, &set, NULL) == SPLITKV_OK)
      return set;
  }
  return NULL;
}

int64_t splitkv_probe_multiply_add(splitkv_isa isa, int64_t n_fma, float *sink) {
  const spl_kernel_set *set = set_to_probe(isa);
  return sink == NULL || set == NULL ? 0 : set->probe_multiply_add(n_fma, sink);
}

int64_t splitkv_probe_read(splitkv_isa isa, const void *data, size_t size_bytes,
                           size_t prefetch_bytes, uint32_t *sink) {
  const spl_kernel_set *set = set_to_probe(isa);
  if (data == NULL || sink == NULL || set == NULL) return 0;
  return set->probe_read(data, size_bytes, prefetch_bytes, sink);
}
