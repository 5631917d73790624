/* SPDX-License-Identifier: Apache-2.0 */
#include "suites.h"

#include <string.h>

#define P "page=128 d=128 dtype=f16 "

/* The shapes of the pull request whose scratch memory was a guess: its benchmark and, from
 * "acc_", its accuracy test. */
static const suite_case pr683[] = {
    {"b1_h16_kv8_s2048", P "b=1 hq=16 hkv=8 kv=2048", SUITE_ALL},
    {"b1_h16_kv8_s4096", P "b=1 hq=16 hkv=8 kv=4096", SUITE_ALL},
    {"b1_h32_kv8_s2048", P "b=1 hq=32 hkv=8 kv=2048", SUITE_ALL},
    {"b1_h32_kv8_s4096", P "b=1 hq=32 hkv=8 kv=4096", SUITE_ALL},
    {"b1_h32_kv8_s8192", P "b=1 hq=32 hkv=8 kv=8192", SUITE_ALL},
    {"b1_h40_kv8_s2048", P "b=1 hq=40 hkv=8 kv=2048", SUITE_ALL},
    {"b1_h64_kv8_s2048", P "b=1 hq=64 hkv=8 kv=2048", SUITE_ALL},
    {"b1_h32_kv32_s2048", P "b=1 hq=32 hkv=32 kv=2048", SUITE_ALL},
    {"b4_h32_kv8_s2048", P "b=4 hq=32 hkv=8 kv=2048", SUITE_ALL},
    {"b8_h32_kv8_s2048", P "b=8 hq=32 hkv=8 kv=2048", SUITE_ALL},
    {"b16_h32_kv8_s2048", P "b=16 hq=32 hkv=8 kv=2048", SUITE_ALL},
    {"b32_h32_kv8_s2048", P "b=32 hq=32 hkv=8 kv=2048", SUITE_ALL},
    {"b64_h32_kv8_s2048", P "b=64 hq=32 hkv=8 kv=2048", SUITE_ALL},
    {"b256_h16_kv1_s8192", P "b=256 hq=16 hkv=1 kv=8192", SUITE_ALL},
    {"acc_b1_h32_kv8_s128", P "b=1 hq=32 hkv=8 kv=128", SUITE_CHECK | SUITE_ASCEND_CHECK},
    {"acc_b4_h32_kv8_s512", P "b=4 hq=32 hkv=8 kv=512", SUITE_CHECK | SUITE_ASCEND_CHECK},
    {"acc_b2_h8_kv8_s256", P "b=2 hq=8 hkv=8 kv=256", SUITE_CHECK | SUITE_ASCEND_CHECK},
    {"acc_b8_h32_kv8_s1024", P "b=8 hq=32 hkv=8 kv=1024", SUITE_CHECK | SUITE_ASCEND_CHECK},
    {"acc_b1_h32_kv8_s2048", P "b=1 hq=32 hkv=8 kv=2048", SUITE_CHECK | SUITE_ASCEND_CHECK},
    {"acc_b4_h64_kv8_s1024", P "b=4 hq=64 hkv=8 kv=1024", SUITE_CHECK | SUITE_ASCEND_CHECK},
    {"acc_b256_h16_kv1_s8192", P "b=256 hq=16 hkv=1 kv=8192", SUITE_CHECK | SUITE_ASCEND_CHECK},
};

/* Lengths of every sort in one batch, in every layout, table and policy. */
static const suite_case ragged[] = {
    {"no_requests", "b=0 hq=8 hkv=2 d=64", SUITE_CHECK},
    {"all_empty", "b=5 hq=8 hkv=2 d=64 kv=0", SUITE_CHECK},
    {"one_token", "b=1 hq=8 hkv=2 d=64 kv=1", SUITE_CHECK},
    {"one_token_each", "b=33 hq=8 hkv=8 d=64 kv=1 table=shuffled", SUITE_CHECK},
    {"empty_between", "kv=0,5,0,0,4096,17,0 hq=8 hkv=2 d=64 page=16", SUITE_CHECK},
    {"page_edges", "kv=127,128,129,255,256,257,1,383 hq=16 hkv=4 table=shuffled", SUITE_CHECK},
    {"tile_edges", "kv=1,15,16,17,31,33,63,64,65,127,129 hq=8 hkv=1 d=64 page=7", SUITE_CHECK},
    {"one_long_63_short", "kv=131072,512x63 hq=8 hkv=1 d=128", SUITE_BOTH},
    {"long_last", "kv=64x31,65536 hq=8 hkv=2 d=64 page=64 table=shuffled", SUITE_BOTH},
    {"random_4k", "b=32 kv=1..4096 hq=32 hkv=8 table=shuffled", SUITE_BOTH},
    {"random_1k_hnd", "b=64 kv=0..1024 hq=32 hkv=8 layout=hnd table=shuffled page=16", SUITE_BOTH},
    {"random_shared", "b=24 kv=100..3000 hq=16 hkv=4 table=shared page=32", SUITE_BOTH},
    {"random_csr_i64", "b=24 kv=0..3000 hq=16 hkv=4 table=shuffled format=csr index=i64",
     SUITE_BOTH},
    {"shared_csr_hnd", "b=24 kv=0..2000 hq=16 hkv=4 table=shared format=csr layout=hnd page=48",
     SUITE_CHECK},
    {"none", "b=9 kv=0..3000 hq=8 hkv=2 split=none table=shuffled", SUITE_CHECK},
    {"size_256", "b=9 kv=0..3000 hq=8 hkv=2 split=size:256 table=shuffled", SUITE_CHECK},
    {"size_1", "kv=0,1,7,64,65 hq=8 hkv=2 d=64 split=size:1 page=16", SUITE_CHECK},
    {"size_1000", "b=9 kv=0..3000 hq=8 hkv=2 split=size:1000 page=19", SUITE_CHECK},
    {"count_8", "b=9 kv=0..3000 hq=8 hkv=2 split=count:8 table=shuffled", SUITE_CHECK},
    {"count_22", "b=5 kv=0..500 hq=16 hkv=1 split=count:22", SUITE_CHECK},
    {"count_more_than_tokens", "kv=3,0,1,5 hq=8 hkv=2 split=count:64", SUITE_CHECK},
    {"seven_workers", "b=5 kv=0..3000 hq=8 hkv=2 threads=7", SUITE_CHECK},
    {"more_workers_than_tokens", "kv=3,0,1 hq=2 hkv=1 threads=24", SUITE_CHECK},
    {"adversarial", "b=12 kv=0..3000 hq=16 hkv=4 data=adversarial table=shuffled", SUITE_CHECK},
    {"adversarial_split", "b=12 kv=1..3000 hq=16 hkv=4 data=adversarial split=size:100",
     SUITE_CHECK},
    {"adversarial_shared", "b=12 kv=1..2000 hq=10 hkv=5 data=adversarial table=shared page=16",
     SUITE_CHECK},
    {"mixed_q32", "b=12 kv=0..2000 hq=16 hkv=4 dtype_q=f32 dtype_kv=f16 dtype_out=f32",
     SUITE_CHECK},
    {"mixed_kv_bf16", "b=12 kv=0..2000 hq=16 hkv=4 dtype_q=f16 dtype_kv=bf16 dtype_out=f16",
     SUITE_CHECK},
    {"small_scale", "b=6 kv=1..2000 hq=8 hkv=2 scale=0.001", SUITE_CHECK},
    {"negative_scale", "b=6 kv=1..2000 hq=8 hkv=2 scale=-0.5", SUITE_CHECK},
};

/* Groups, widths and page sizes that no kernel was written for. */
static const suite_case odd[] = {
    {"group_1", "kv=300,0,77 hq=5 hkv=5 d=128", SUITE_BOTH},
    {"group_2", "kv=300,0,77 hq=6 hkv=3 d=128", SUITE_BOTH},
    {"group_3", "kv=300,0,77 hq=9 hkv=3 d=128 page=16 table=shuffled", SUITE_BOTH},
    {"group_5", "kv=300,1,77 hq=10 hkv=2 d=128 page=19 layout=hnd", SUITE_BOTH},
    {"group_6", "kv=300,1,77 hq=12 hkv=2 d=64 page=48 table=shared", SUITE_BOTH},
    {"group_7", "kv=700,1,77 hq=7 hkv=1 d=96 page=7 table=shuffled", SUITE_BOTH},
    {"group_8", "kv=700,1,77 hq=16 hkv=2 d=96 page=64", SUITE_BOTH},
    {"group_12", "kv=513,64,77 hq=12 hkv=1 d=128 page=100", SUITE_BOTH},
    {"group_16", "kv=513,64,77 hq=32 hkv=2 d=192 page=256", SUITE_BOTH},
    {"group_64", "kv=513,64,77 hq=64 hkv=1 d=128 page=128", SUITE_BOTH},
    {"group_128_wide", "kv=200,3 hq=128 hkv=1 d=576 dv=512 page=64", SUITE_BOTH},
    {"group_33", "kv=200,3 hq=33 hkv=1 d=80", SUITE_CHECK},
    {"d1", "kv=130,5 hq=4 hkv=2 d=1 page=7", SUITE_CHECK},
    {"d3_dv1", "kv=130,5 hq=4 hkv=2 d=3 dv=1 page=7", SUITE_CHECK},
    {"d16", "kv=31,33,128 hq=16 hkv=1 d=16 page=16 table=shuffled", SUITE_BOTH},
    {"d17", "kv=31,33,128 hq=6 hkv=2 d=17 page=1", SUITE_CHECK},
    {"d31_dv33", "kv=300,65 hq=6 hkv=2 d=31 dv=33 layout=hnd", SUITE_CHECK},
    {"d32", "kv=300,65 hq=8 hkv=2 d=32 page=16", SUITE_BOTH},
    {"d48", "kv=300,65 hq=8 hkv=2 d=48 page=19", SUITE_CHECK},
    {"d64", "kv=600,65 hq=8 hkv=2 d=64 page=16", SUITE_BOTH},
    {"d72", "kv=600,65 hq=8 hkv=2 d=72 page=16", SUITE_CHECK},
    {"d80", "kv=600,65 hq=8 hkv=2 d=80 page=100 table=shuffled", SUITE_BOTH},
    {"d96", "kv=600,65 hq=8 hkv=2 d=96 page=528", SUITE_BOTH},
    {"d100", "kv=600,65 hq=8 hkv=2 d=100 page=48", SUITE_CHECK},
    {"d112", "kv=600,65 hq=8 hkv=2 d=112 page=64", SUITE_BOTH},
    {"d127_dv129", "kv=600,65 hq=8 hkv=2 d=127 dv=129 page=64", SUITE_CHECK},
    {"d160", "kv=600,65 hq=8 hkv=2 d=160 page=64", SUITE_CHECK},
    {"d192_dv128", "kv=600,65 hq=8 hkv=2 d=192 dv=128 page=64", SUITE_BOTH},
    {"d256", "kv=600,65 hq=8 hkv=2 d=256 page=128", SUITE_BOTH},
    {"d512", "kv=600,65 hq=8 hkv=2 d=512 page=64", SUITE_BOTH},
    {"d575", "kv=200,65 hq=6 hkv=2 d=575 page=19 layout=hnd", SUITE_CHECK},
    {"d576", "kv=600,65 hq=16 hkv=1 d=576 page=64", SUITE_BOTH},
    {"d576_dv512", "kv=600,65 hq=16 hkv=1 d=576 dv=512 page=64", SUITE_BOTH},
    {"d64_dv576", "kv=300,65 hq=8 hkv=1 d=64 dv=576 page=16", SUITE_CHECK},
    {"d576_dv1", "kv=300,65 hq=8 hkv=1 d=576 dv=1 page=16", SUITE_CHECK},
    {"page_1", "kv=300,0,65 hq=8 hkv=2 d=64 page=1 table=shuffled", SUITE_BOTH},
    {"page_7", "kv=300,0,65 hq=8 hkv=2 d=64 page=7 table=shuffled format=csr", SUITE_BOTH},
    {"page_16", "kv=300,0,65 hq=8 hkv=2 page=16 table=shuffled layout=hnd", SUITE_BOTH},
    {"page_19", "kv=300,0,65 hq=8 hkv=2 page=19 table=shared index=i64", SUITE_BOTH},
    {"page_48", "kv=300,0,65 hq=8 hkv=2 page=48 table=shuffled", SUITE_BOTH},
    {"page_64", "kv=300,0,65 hq=8 hkv=2 page=64 table=shared format=csr index=i64", SUITE_BOTH},
    {"page_100", "kv=300,0,65 hq=8 hkv=2 page=100 table=shuffled split=size:50", SUITE_BOTH},
    {"page_256", "kv=700,0,256 hq=8 hkv=2 page=256 table=shuffled split=count:3", SUITE_BOTH},
    {"page_528", "kv=1100,0,528 hq=8 hkv=2 page=528 table=shuffled layout=hnd", SUITE_BOTH},
    {"page_beyond_kv", "kv=30,0,65 hq=8 hkv=2 page=20000", SUITE_CHECK},
    {"odd_everything",
     "b=7 kv=0..900 hq=35 hkv=5 d=111 dv=45 page=13 table=shared "
     "layout=hnd format=csr index=i64 split=size:37 threads=3 data=adversarial",
     SUITE_CHECK},
};

/* Up to a million tokens; the largest case has 2.2 GB of KV in f32. */
static const suite_case long_context[] = {
    {"s65536", P "hq=32 hkv=8 kv=65536", SUITE_BOTH},
    {"s131072_split", P "hq=32 hkv=8 kv=131072 split=size:2048", SUITE_BOTH},
    {"s131072_none", "page=64 d=64 hq=8 hkv=1 kv=131072 split=none table=shuffled", SUITE_BOTH},
    {"s262144_shared", "page=128 d=128 hq=8 hkv=1 kv=262144,200000 table=shared", SUITE_BOTH},
    {"s1M_adversarial", "page=128 d=64 hq=4 hkv=1 kv=1M data=adversarial", SUITE_CHECK},
    {"s1M_none", "page=528 d=64 hq=4 hkv=1 kv=1M split=none", SUITE_CHECK},
    {"s1M", P "hq=8 hkv=2 kv=1M", SUITE_BOTH},
};

/* Attention as models use it, and all of it at once. */
static const suite_case variants[] = {
    {"mistral", "hq=32 hkv=8 d=128 kv=100..9000 b=4 window=4096 page=16 table=shuffled",
     SUITE_BOTH},
    {"gemma2_local", "hq=16 hkv=8 d=256 kv=9000,300 window=4096 softcap=50 scale=0.0625",
     SUITE_BOTH},
    {"gemma2_global", "hq=16 hkv=8 d=256 kv=9000,300 softcap=50 scale=0.0625", SUITE_BOTH},
    {"gpt_oss_local", "hq=64 hkv=8 d=64 kv=9000,300,1,0 window=128 sinks page=16", SUITE_BOTH},
    {"gpt_oss_global", "hq=64 hkv=8 d=64 kv=9000,300,1,0 sinks page=16", SUITE_BOTH},
    {"mpt", "hq=32 hkv=32 d=128 kv=4000,300 alibi", SUITE_BOTH},
    {"window_1", "kv=300,0,1,65 hq=8 hkv=2 d=64 page=7 window=1", SUITE_CHECK},
    {"window_edges", "kv=63,64,65,127,128,129,640 hq=8 hkv=1 d=64 page=16 window=64", SUITE_CHECK},
    {"window_wide", "kv=300,0,1,65 hq=8 hkv=2 window=1M", SUITE_CHECK},
    {"window_size", "b=9 kv=0..3000 hq=8 hkv=2 window=700 split=size:256 table=shared",
     SUITE_CHECK},
    {"window_count", "b=9 kv=0..3000 hq=8 hkv=2 window=700 split=count:5 format=csr", SUITE_CHECK},
    {"sinks_size", "b=9 kv=0..3000 hq=8 hkv=2 sinks split=size:256 table=shuffled", SUITE_CHECK},
    {"softcap_small", "b=6 kv=1..2000 hq=8 hkv=2 softcap=0.5", SUITE_CHECK},
    {"softcap_steep", "b=6 kv=1..2000 hq=8 hkv=2 softcap=30 scale=4", SUITE_CHECK},
    {"alibi_adversarial", "b=6 kv=1..3000 hq=12 hkv=4 alibi data=adversarial", SUITE_CHECK},
    {"all", "b=12 kv=0..3000 hq=20 hkv=4 window=999 softcap=20 sinks alibi table=shuffled page=19",
     SUITE_BOTH},
    {"all_size", "b=12 kv=0..3000 hq=20 hkv=4 window=999 softcap=20 sinks alibi split=size:100",
     SUITE_CHECK},
    {"all_bf16",
     "b=12 kv=0..3000 hq=20 hkv=4 window=999 softcap=20 sinks alibi dtype=bf16 "
     "arithmetic=bf16",
     SUITE_CHECK},
};

/* A prefix in the pages of all requests, named and not. */
static const suite_case prefix[] = {
    {"decode", "b=16 hq=32 hkv=8 kv=2100..2300 prefix=2048 page=16 dtype=f16", SUITE_BOTH},
    {"decode_unshared", "b=16 hq=32 hkv=8 kv=2100..2300 prefix=2048 page=16 dtype=f16 unshared",
     SUITE_BOTH},
    {"mha", "b=16 hq=16 hkv=16 kv=2100 prefix=2048 dtype=f32", SUITE_BOTH},
    {"mha_hnd", "b=16 hq=16 hkv=16 kv=2100 prefix=2048 dtype=f32 layout=hnd", SUITE_BOTH},
    {"size", "b=16 hq=32 hkv=8 kv=1100..1300 prefix=1000 page=8 split=size:250 table=shuffled",
     SUITE_CHECK},
    {"count", "b=5 hq=8 hkv=2 kv=1100 prefix=1000 page=8 split=count:3", SUITE_CHECK},
    {"holes", "kv=500,1500,1400,3,1200,1024,1025,0 hq=8 hkv=2 prefix=1024 page=64", SUITE_CHECK},
    {"rows", "b=5 kv=1030..1400 q=0..9 hq=8 hkv=2 prefix=1024 page=32 causal", SUITE_CHECK},
    {"tree", "b=6 kv=1030..1090 q=8 tree=40 hq=8 hkv=2 prefix=1024 page=16", SUITE_CHECK},
    {"window", "b=4 kv=600 hq=8 hkv=2 prefix=512 page=16 window=300", SUITE_CHECK},
    {"all",
     "b=9 kv=700..900 hq=20 hkv=4 prefix=640 page=19 softcap=20 sinks alibi format=csr "
     "threads=5",
     SUITE_CHECK},
    {"int8", "b=9 kv=700..900 hq=20 hkv=4 prefix=640 page=16 dtype=f16 kv_dtype=int8 scales=token",
     SUITE_CHECK},
    {"bf16", "b=20 kv=700..900 hq=16 hkv=4 prefix=640 page=16 dtype=bf16 arithmetic=bf16",
     SUITE_CHECK},
};

/* Each model in decode, a prefill chunk, decode beside a chunk, and the verification of a tree of
 * drafts. Contexts are longer than windows, and chunks of a prefill lie across a border of the
 * model's own chunks. */
#define MODEL(label, name, kv, q)                                                                  \
  {label "-decode", "model=" name " kv=" kv ",300 page=16 table=shuffled", SUITE_BOTH},            \
      {label "-prefill", "model=" name " kv=" kv " q=" q " page=64", SUITE_BOTH},                  \
      {label "-mixed", "model=" name " kv=700," kv ",1,65 q=1," q ",1,1 table=shuffled",           \
       SUITE_BOTH},                                                                                \
  {                                                                                                \
    label "-tree", "model=" name " kv=300," kv " q=8 tree=8 page=32 table=shuffled", SUITE_BOTH    \
  }
static const suite_case models[] = {
    MODEL("qwen3-0.6b", "qwen3-0.6b", "1300", "24"),
    MODEL("qwen3-1.7b", "qwen3-1.7b", "1000", "24"),
    MODEL("qwen3-4b", "qwen3-4b", "1000", "16"),
    MODEL("qwen3-8b", "qwen3-8b", "1000", "16"),
    MODEL("qwen3-14b", "qwen3-14b", "1000", "12"),
    MODEL("qwen3-32b", "qwen3-32b", "1000", "9"),
    MODEL("llama-3.1-8b", "llama-3.1-8b", "1300", "12"),
    MODEL("llama-3.1-70b", "llama-3.1-70b", "1000", "9"),
    MODEL("mistral-7b", "mistral-7b", "4300", "4"),
    MODEL("phi-3", "phi-3", "2200", "7"),
    MODEL("bloom-7b", "bloom-7b", "1000", "12"),
    MODEL("deepseek-v3", "deepseek-v3", "500", "4"),
    MODEL("gemma-2-9b-global", "gemma-2-9b/global", "1000", "16"),
    MODEL("gemma-2-9b-local", "gemma-2-9b/local", "4300", "4"),
    MODEL("gemma-3-27b-global", "gemma-3-27b/global", "1000", "16"),
    MODEL("gemma-3-27b-local", "gemma-3-27b/local", "1300", "16"),
    MODEL("gpt-oss-20b-global", "gpt-oss-20b/global", "1000", "12"),
    MODEL("gpt-oss-20b-local", "gpt-oss-20b/local", "300", "48"),
    MODEL("llama-4-scout-global", "llama-4-scout/global", "1000", "12"),
    MODEL("llama-4-scout-local", "llama-4-scout/local", "8195", "6"),
};
#undef MODEL

/* Codes of each kind with scales of each kind, over groups 1, 4 and 8 and other odd ones, ragged
 * lengths, and channels that are no multiple of anything where the codes allow it. */
#define SHAPE_1 "kv=300,0,77,1 hq=3 hkv=3 page=7 table=shuffled "
#define SHAPE_4 "b=5 kv=0..600 hq=8 hkv=2 page=16 table=shared "
#define SHAPE_8 "kv=513,64,77 hq=16 hkv=2 page=64 layout=hnd table=shuffled "
#define SHAPE_5 "b=7 kv=0..400 hq=15 hkv=3 page=19 table=shuffled format=csr split=size:50 "
#define CODES(dtype, odd)                                                                          \
  {dtype "-none", SHAPE_1 "d=64 scales=none kv_dtype=" dtype, SUITE_CHECK},                        \
      {dtype "-tensor", SHAPE_8 "d=128 scales=tensor kv_dtype=" dtype, SUITE_CHECK},               \
      {dtype "-head", SHAPE_5 "d=" odd " scales=head kv_dtype=" dtype, SUITE_CHECK},               \
      {dtype "-channel", SHAPE_4 "d=128 dv=96 scales=channel kv_dtype=" dtype, SUITE_CHECK},       \
      {dtype "-token", SHAPE_8 "d=80 scales=token scales_dtype=f16 kv_dtype=" dtype, SUITE_CHECK}, \
      {dtype "-group32", SHAPE_4 "d=" odd " scales=group32 kv_dtype=" dtype, SUITE_CHECK},         \
      {dtype "-group64", SHAPE_1 "d=192 dv=128 scales=group64 scales_dtype=f16 kv_dtype=" dtype,   \
       SUITE_CHECK},                                                                               \
      {dtype "-channel-token",                                                                     \
       SHAPE_8 "d=" odd " scales=channel/token data=adversarial kv_dtype=" dtype, SUITE_CHECK},    \
      {dtype "-masks", SHAPE_4 "d=64 q=0..9 causal window=200 softcap=20 sinks kv_dtype=" dtype,   \
       SUITE_CHECK},                                                                               \
      {dtype "-mla", SHAPE_5 "d=96 dv=72 mla scales=group32 kv_dtype=" dtype, SUITE_CHECK},        \
      {dtype "-q-bf16", SHAPE_1 "d=112 dtype=bf16 kv_dtype=" dtype, SUITE_CHECK}, {                \
    dtype "-8k", "kv=8192 table=shuffled kv_dtype=" dtype, SUITE_BOTH                              \
  }
#define ZEROS(dtype, odd)                                                                          \
  {dtype "-zeros-tensor", SHAPE_1 "d=" odd " scales=tensor zeros kv_dtype=" dtype, SUITE_CHECK},   \
      {dtype "-zeros-head", SHAPE_4 "d=128 scales=head zeros kv_dtype=" dtype, SUITE_CHECK},       \
      {dtype "-zeros-channel", SHAPE_8 "d=" odd " scales=channel zeros kv_dtype=" dtype,           \
       SUITE_CHECK},                                                                               \
      {dtype "-zeros-token", SHAPE_5 "d=64 scales=token zeros scales_dtype=f16 kv_dtype=" dtype,   \
       SUITE_CHECK},                                                                               \
      {dtype "-zeros-group32", SHAPE_8 "d=128 dv=" odd " scales=group32 zeros kv_dtype=" dtype,    \
       SUITE_CHECK},                                                                               \
      {dtype "-zeros-group64", SHAPE_4 "d=96 scales=group64 zeros kv_dtype=" dtype, SUITE_CHECK},  \
      {dtype "-zeros-channel-group32",                                                             \
       SHAPE_1 "d=64 scales=channel/group32 zeros data=adversarial kv_dtype=" dtype, SUITE_CHECK}, \
  {                                                                                                \
    dtype "-zeros-none-token", SHAPE_4 "d=64 scales=none/token zeros kv_dtype=" dtype, SUITE_CHECK \
  }
static const suite_case quant[] = {
    CODES("int8", "77"), CODES("fp8_e4m3", "33"), CODES("fp8_e5m2", "111"),
    CODES("int4", "70"), ZEROS("int8", "35"),     ZEROS("int4", "34"),
};
#undef CODES
#undef ZEROS
#undef SHAPE_1
#undef SHAPE_4
#undef SHAPE_8
#undef SHAPE_5

/* What the Ascend kernel was never tested on: ragged lengths, empty requests, partial pages, tables
 * that are not the identity, pages other than 128, channels other than 128, cores other than 24,
 * splits beside a tail, bf16. A case has a rule where the other one plans the same. */
#define A SUITE_ASCEND_CHECK
#define AB SUITE_ASCEND
static const suite_case ascend[] = {
    {"one_token", "b=1 hq=8 hkv=2 d=64 page=16 kv=1", A},
    {"one_token_each", "b=33 hq=8 hkv=8 d=64 page=16 kv=1 table=shuffled", A},
    {"empty_between", "kv=0,5,0,0,700,17,0 hq=8 hkv=2 d=64 page=16", A},
    {"empty_first_split", "kv=0,0,2048,300 hq=4 hkv=1 cores=8 rule=pr683 d=64", A},
    {"empty_last_bf16", "kv=2048,300,0,0 hq=4 hkv=1 cores=8 d=64 dtype=bf16", A},
    {"page_edges", "kv=127,128,129,255,256,257,1,383 hq=16 hkv=4 table=shuffled", A},
    {"tile_edges", "kv=1,15,16,17,31,33,63,64,65,127,129 hq=8 hkv=1 d=64 page=16", A},
    {"ragged_tail", "b=29 kv=1..900 hq=32 hkv=1 d=64 table=shuffled", AB},
    {"ragged_gqa", "b=32 kv=0..600 hq=32 hkv=8 d=64 table=shuffled", AB},
    {"ragged_mha_bf16", "b=9 kv=1..500 hq=16 hkv=16 d=64 page=64 dtype=bf16 table=shuffled", A},
    {"split_ragged", "kv=4096,1,300,0,2500 hq=8 hkv=1 cores=16 d=64 table=shuffled", AB},
    {"split_ragged_bf16", "kv=4096,1,300,0,2500 hq=8 hkv=1 cores=16 d=64 dtype=bf16", A},
    {"split_by_pr683", "b=20 kv=0..3000 hq=4 hkv=1 d=32 cores=8 rule=pr683 table=shuffled", AB},
    {"split_by_pr683_kept_whole", "b=20 kv=0..3000 hq=4 hkv=1 d=32 cores=8 table=shuffled", A},
    {"split_by_pr683_bf16", "b=24 kv=2048 hq=4 hkv=2 d=64 cores=8 rule=pr683 dtype=bf16", A},
    {"split_few_heads", "b=2 hq=8 hkv=8 kv=256", A},
    {"split_one_slot", "b=1 hq=4 hkv=1 kv=100 d=64", A},
    {"split_partial_last", "b=1 hq=8 hkv=2 kv=2001 d=64 page=32 table=shuffled", A},
    {"split_then_one_page", "kv=2000,16 hq=4 hkv=4 page=16 d=64 cores=12 table=shuffled", A},
    {"shared", "b=24 kv=100..700 hq=16 hkv=4 d=64 page=32 table=shared pages=60", A},
    {"shared_split", "b=3 kv=100..3000 hq=4 hkv=2 d=64 page=64 table=shared pages=20", A},
    {"one_shared_page", "b=7 kv=1..600 hq=12 hkv=4 page=16 d=64 table=shared pages=1", A},
    {"page_16", "kv=300,7,65 hq=16 hkv=8 page=16 table=shuffled", A},
    {"page_32", "kv=300,7,65 hq=16 hkv=8 page=32 table=shuffled dtype=bf16", A},
    {"page_48", "kv=300,7,65 hq=16 hkv=8 page=48 table=shuffled", A},
    {"page_64_wide_row", "kv=300,7,65 hq=16 hkv=8 page=64 width=40 table=shuffled", A},
    {"page_256", "kv=700,7,256 hq=16 hkv=8 page=256 d=64 table=shuffled", A},
    {"d16", "kv=31,33,128 hq=16 hkv=1 d=16 page=16 table=shuffled", A},
    {"d32_bf16", "kv=31,33,128 hq=16 hkv=2 d=32 page=16 dtype=bf16 table=shuffled", A},
    {"d40_mha", "kv=300,65 hq=4 hkv=4 d=40 page=16 table=shuffled", AB},
    {"d80", "kv=300,65 hq=8 hkv=2 d=80 page=16 table=shuffled", A},
    {"d96_cores_40", "kv=300,65 hq=40 hkv=8 d=96 cores=40 table=shuffled", A},
    {"d192", "kv=300,65 hq=32 hkv=4 d=192 page=64 table=shuffled", A},
    {"d256", "kv=300,65 hq=16 hkv=4 d=256 page=64 table=shuffled", A},
    {"d256_split", "b=1 kv=1500 hq=8 hkv=8 d=256 page=64 dtype=bf16", A},
    {"group_3", "b=5 kv=1..400 hq=9 hkv=3 d=64 page=16 table=shuffled", A},
    {"group_7_chunks", "b=3 kv=1..400 hq=14 hkv=2 d=64 cores=20 table=shuffled", A},
    {"group_64", "b=2 kv=513,64 hq=64 hkv=1 d=64 table=shuffled", A},
    {"cores_1", "b=3 kv=1..600 hq=8 hkv=2 d=64 cores=1", A},
    {"cores_2_tail", "b=5 kv=1..600 hq=8 hkv=2 d=64 cores=2 dtype=bf16", A},
    {"cores_20", "b=16 kv=1..500 hq=32 hkv=8 d=64 cores=20 table=shuffled", A},
    {"cores_48", "b=1 kv=3000 hq=8 hkv=2 d=64 cores=48 table=shuffled", A},
    {"small_scale", "b=6 kv=1..600 hq=8 hkv=2 d=64 scale=0.001", A},
    {"negative_scale_split", "b=1 kv=1..900 hq=8 hkv=2 d=64 scale=-0.5", A},
    {"adversarial", "b=6 kv=1..900 hq=16 hkv=4 d=64 data=adversarial table=shuffled", A},
};
#undef A
#undef AB

#define SUITE(name, cases, summary)                                                                \
  { name, summary, cases, sizeof cases / sizeof cases[0] }

const suite suites[] = {
    SUITE("pr683", pr683, "the pull request's 14 benchmark and 7 accuracy shapes"),
    SUITE("ragged", ragged, "lengths from 0 to 131072 in one batch; tables, policies, layouts"),
    SUITE("odd", odd, "groups 1 to 128, d and dv 1 to 576, pages 1 to 20000"),
    SUITE("long", long_context, "up to 1 M tokens"),
    SUITE("variants", variants, "sliding windows, soft-cap, sinks and ALiBi"),
    SUITE("prefix", prefix, "requests whose first pages are the same"),
    SUITE("models", models, "models in decode, prefill, both, and trees of drafts"),
    SUITE("quant", quant, "KV in int8, fp8 and int4 with scales and zero points"),
    SUITE("ascend", ascend,
          "for 'splitkv ascend': what the pull request's kernel was never run on"),
};
const size_t n_suites = sizeof suites / sizeof suites[0];

const suite *suite_find(const char *name) {
  for (size_t i = 0; i < n_suites; i++) {
    if (strcmp(suites[i].name, name) == 0) {
      return &suites[i];
    }
  }
  return NULL;
}

int suite_has(const suite *s, unsigned uses) {
  for (size_t i = 0; i < s->n_cases; i++) {
    if (s->cases[i].uses & uses) {
      return 1;
    }
  }
  return 0;
}
