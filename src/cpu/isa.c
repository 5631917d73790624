/* CPU detection. On x86-64 a feature counts only if XCR0 says that the OS saves its registers.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "isa.h"

#include <stdatomic.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

static uint64_t read_xcr0(void) {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}

/* The family of a CPU by AMD, else 0. */
static uint32_t amd_family(void) {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(0, &a, &b, &c, &d)) return 0;
  if (b != 0x68747541 || d != 0x69746e65 || c != 0x444d4163) return 0; /* "AuthenticAMD" */
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  return (a >> 8 & 0xf) + (a >> 20 & 0xff);
}

/* AMD's families before 1Ah (Zen 5) have units of 256 bits and lose requests that go into the first
 * cache (docs/performance.md). A family, since hypervisors hide the leaf that tells of units. */
static uint32_t tuning_bits(void) {
  const uint32_t family = amd_family();
  return (family == 0 || family >= 0x1a ? SPL_CPU_WIDE : 0) | (family >= 0x1a ? SPL_CPU_NEAR : 0);
}

static uint32_t ask_cpu(void) {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const uint32_t osxsave = 1u << 27, avx = 1u << 28;
  if ((c & osxsave) == 0 || (c & avx) == 0) return 0;
  const uint64_t xcr0 = read_xcr0();
  const uint64_t ymm_state = 0x6, zmm_state = 0xe6;
  if ((xcr0 & ymm_state) != ymm_state) return 0;

  uint32_t bits = 0;
  if (c & (1u << 12)) bits |= SPL_CPU_FMA;
  if (c & (1u << 29)) bits |= SPL_CPU_F16C;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return bits;
  if (b & (1u << 5)) bits |= SPL_CPU_AVX2;
  const uint32_t f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
  const uint32_t all = f | dq | bw | vl;
  if ((b & all) == all && (xcr0 & zmm_state) == zmm_state) bits |= SPL_CPU_AVX512;
  if ((bits & SPL_CPU_AVX512) && (c & (1u << 11))) bits |= SPL_CPU_AVX512_VNNI;
  const int has_more = a >= 1, has_vbmi = (c & (1u << 1)) != 0; /* leaf 7 has a part 1 */
  if (has_more && (bits & SPL_CPU_AVX512) && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
      (a & (1u << 5)) && has_vbmi) {
    bits |= SPL_CPU_AVX512_BF16;
  }
  return bits | tuning_bits();
}
#elif defined(__aarch64__)
static uint32_t ask_cpu(void) {
  return SPL_CPU_NEON;
}
#else
static uint32_t ask_cpu(void) {
  return 0;
}
#endif

/* Asked once: CPUID takes microseconds in a virtual machine, more than a plan. The only word of the
 * library that is ever written; it has one value for the life of the process, so that threads which
 * ask at the same time write the same. */
static _Atomic uint32_t known_bits;
enum { SPL_CPU_ASKED = 1 << 30 };

uint32_t spl_cpu_bits(void) {
  uint32_t bits = atomic_load_explicit(&known_bits, memory_order_relaxed);
  if (bits == 0) {
    bits = ask_cpu() | SPL_CPU_ASKED;
    atomic_store_explicit(&known_bits, bits, memory_order_relaxed);
  }
  return bits & ~(uint32_t)SPL_CPU_ASKED;
}

const char *spl_cpu_bits_text(uint32_t bits) {
  /* VNNI has the place of NEON, which no x86 has. */
  static const char *const x86[64] = {"",
                                      "AVX2",
                                      "FMA",
                                      "AVX2 FMA",
                                      "F16C",
                                      "AVX2 F16C",
                                      "FMA F16C",
                                      "AVX2 FMA F16C",
                                      "AVX-512",
                                      "AVX2 AVX-512",
                                      "FMA AVX-512",
                                      "AVX2 FMA AVX-512",
                                      "F16C AVX-512",
                                      "AVX2 F16C AVX-512",
                                      "FMA F16C AVX-512",
                                      "AVX2 FMA F16C AVX-512",
                                      "AVX512-BF16-VBMI",
                                      "AVX2 AVX512-BF16-VBMI",
                                      "FMA AVX512-BF16-VBMI",
                                      "AVX2 FMA AVX512-BF16-VBMI",
                                      "F16C AVX512-BF16-VBMI",
                                      "AVX2 F16C AVX512-BF16-VBMI",
                                      "FMA F16C AVX512-BF16-VBMI",
                                      "AVX2 FMA F16C AVX512-BF16-VBMI",
                                      "AVX-512 AVX512-BF16-VBMI",
                                      "AVX2 AVX-512 AVX512-BF16-VBMI",
                                      "FMA AVX-512 AVX512-BF16-VBMI",
                                      "AVX2 FMA AVX-512 AVX512-BF16-VBMI",
                                      "F16C AVX-512 AVX512-BF16-VBMI",
                                      "AVX2 F16C AVX-512 AVX512-BF16-VBMI",
                                      "FMA F16C AVX-512 AVX512-BF16-VBMI",
                                      "AVX2 FMA F16C AVX-512 AVX512-BF16-VBMI",
                                      "AVX512-VNNI",
                                      "AVX2 AVX512-VNNI",
                                      "FMA AVX512-VNNI",
                                      "AVX2 FMA AVX512-VNNI",
                                      "F16C AVX512-VNNI",
                                      "AVX2 F16C AVX512-VNNI",
                                      "FMA F16C AVX512-VNNI",
                                      "AVX2 FMA F16C AVX512-VNNI",
                                      "AVX-512 AVX512-VNNI",
                                      "AVX2 AVX-512 AVX512-VNNI",
                                      "FMA AVX-512 AVX512-VNNI",
                                      "AVX2 FMA AVX-512 AVX512-VNNI",
                                      "F16C AVX-512 AVX512-VNNI",
                                      "AVX2 F16C AVX-512 AVX512-VNNI",
                                      "FMA F16C AVX-512 AVX512-VNNI",
                                      "AVX2 FMA F16C AVX-512 AVX512-VNNI",
                                      "AVX512-BF16-VBMI AVX512-VNNI",
                                      "AVX2 AVX512-BF16-VBMI AVX512-VNNI",
                                      "FMA AVX512-BF16-VBMI AVX512-VNNI",
                                      "AVX2 FMA AVX512-BF16-VBMI AVX512-VNNI",
                                      "F16C AVX512-BF16-VBMI AVX512-VNNI",
                                      "AVX2 F16C AVX512-BF16-VBMI AVX512-VNNI",
                                      "FMA F16C AVX512-BF16-VBMI AVX512-VNNI",
                                      "AVX2 FMA F16C AVX512-BF16-VBMI AVX512-VNNI",
                                      "AVX-512 AVX512-BF16-VBMI AVX512-VNNI",
                                      "AVX2 AVX-512 AVX512-BF16-VBMI AVX512-VNNI",
                                      "FMA AVX-512 AVX512-BF16-VBMI AVX512-VNNI",
                                      "AVX2 FMA AVX-512 AVX512-BF16-VBMI AVX512-VNNI",
                                      "F16C AVX-512 AVX512-BF16-VBMI AVX512-VNNI",
                                      "AVX2 F16C AVX-512 AVX512-BF16-VBMI AVX512-VNNI",
                                      "FMA F16C AVX-512 AVX512-BF16-VBMI AVX512-VNNI",
                                      "AVX2 FMA F16C AVX-512 AVX512-BF16-VBMI AVX512-VNNI"};
  if (bits & SPL_CPU_NEON) return "NEON";
  return x86[(bits & 31) | (bits & SPL_CPU_AVX512_VNNI) >> 1];
}
