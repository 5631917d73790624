/* The tensors of `splitkv run`: found in files, checked against each other, made a problem.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLITKV_TOOL_RUN_INPUT_H
#define SPLITKV_TOOL_RUN_INPUT_H

#include "array.h"
#include "safetensors.h"

#include <splitkv/splitkv.h>

typedef enum run_role {
  RUN_Q,
  RUN_K,
  RUN_V,
  RUN_TABLE,
  RUN_KV_LENS,
  RUN_OFFSETS, /* CSR only */
  RUN_SINKS,   /* this one and the next are one number per query head */
  RUN_ALIBI,
  RUN_Q_OFFSETS, /* query rows of each request */
  RUN_TREE_MASK,
  RUN_K_SCALES,
  RUN_V_SCALES,
  RUN_K_ZEROS,
  RUN_V_ZEROS,
  RUN_N_ROLES
} run_role;

/* "--q", "--kv-lens"; "--name-q"; and the tensor's name in a safetensors file, "q", "kv_lens". */
const char *run_role_option(run_role role);
const char *run_role_name_option(run_role role);
const char *run_role_tensor(run_role role);

/* What the command line says about the input. */
typedef struct run_sources {
  const char *paths[RUN_N_ROLES]; /* .npy files; they go before the tensors of the same role */
  const char *names[RUN_N_ROLES]; /* other names of tensors than run_role_tensor's, or NULL */
  const char *tensors_path;       /* a safetensors file, or NULL */
  bool is_bf16;                   /* uint16 .npy arrays hold bfloat16 */
  bool has_kv_dtype;              /* K and V are of kv_dtype, whatever their arrays are called */
  splitkv_dtype kv_dtype;
  int64_t mla_channels; /* V is so many of the first channels of K; 0: it is a tensor of its own */
  bool takes_floats;    /* K and V of floats alone */
} run_sources;

/* Do the options agree with each other? Exit status of the error line. */
int run_sources_check(const run_sources *sources);
/* An output that is also an input would be lost for the next run; that is rarely meant. Exit status
 * of the error line. */
int run_sources_check_output(const run_sources *sources, const char *option, const char *path);

typedef struct run_input {
  run_sources sources;
  file_bytes files[RUN_N_ROLES];
  file_bytes tensors_file;
  safetensors *tensors;
  bool has[RUN_N_ROLES];
  file_array arrays[RUN_N_ROLES];
  void *offsets_copy;    /* offsets in the table's type, where the file has another one */
  float *sinks, *slopes; /* as f32, NULL where there are none */
  splitkv_dtype kv_dtype;
  uint64_t *tree_mask;   /* packed, NULL without one */
  float *wide_scales[2]; /* of K and V as f32, where they had to be converted */
} run_input;

/* Opens and reads all of them. On error one line on stderr, and an exit status other than TOOL_OK;
 * run_input_free is due in either case. */
int run_input_load(const run_sources *sources, run_input *input);
void run_input_free(run_input *input);

/* What the tensors say of the problem and the batch: all counts, dtypes and the table's format.
 * Reads problem->layout and leaves scale, split policy and kernel set alone. dtype_out becomes
 * dtype_q. Exit status as above. */
int run_input_describe(run_input *input, splitkv_problem *problem, splitkv_batch *batch);

/* Query rows in all. */
int64_t run_input_n_rows(const run_input *input);

/* The tensors for splitkv_run; out and lse are the caller's. */
void run_input_tensors(const run_input *input, splitkv_tensors *tensors);

/* Does every page id of the used part of a dense table name a page of the cache? The lengths are
 * known to fit in the table. For kernels that look at no id before they load from its page. Exit
 * status as above. */
int run_input_check_pages(const run_input *input, const splitkv_problem *problem);
/* Makes the table one of int32. Ids that do not fit, which run_input_check_pages allows where
 * nobody reads them, become -1. Exit status as above. */
int run_input_narrow_table(run_input *input);

/* Where a role's values come from, for messages: "--q Q.npy", or "--tensors F: tensor 'q'". Writes
 * to text and returns it. */
enum { RUN_SOURCE_BYTES = 400 };
const char *run_input_source(const run_input *input, run_role role, char text[RUN_SOURCE_BYTES]);

/* The library's error as one line that names the option and its file. Returns the exit status. */
int run_input_library_error(const run_input *input, splitkv_status status,
                            const splitkv_error *error);

#endif
