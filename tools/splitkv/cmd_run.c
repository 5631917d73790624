/* `splitkv run`: attention on the user's own tensors.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "array.h"
#include "commands.h"
#include "machine.h"
#include "npy.h"
#include "options.h"
#include "problem_text.h"
#include "run_input.h"
#include "tool.h"

#include <splitkv/threads.h>

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char cmd_run_help[] =
    "Computes out and lse of NumPy arrays, or of the tensors of a safetensors file.\n"
    "\n"
    "  --q FILE.npy        [requests, query heads, d]: float32, float16 or bfloat16\n"
    "  --k FILE.npy        [pages, page size, KV heads, d], of one float type with V\n"
    "  --v FILE.npy        [pages, page size, KV heads, dv]\n"
    "  --table FILE.npy    int32 or int64 page ids [requests, pages per request]\n"
    "  --kv-lens FILE.npy  int32 or int64 [requests]: tokens attended to\n"
    "  --offsets FILE.npy  [requests + 1]: the table is one list, and request r has\n"
    "                      its entries offsets[r] to offsets[r+1] - 1 (CSR)\n"
    "  --sinks FILE.npy    [query heads]: logits that join each row's denominator\n"
    "  --alibi FILE.npy    [query heads]: slopes of ALiBi\n"
    "  --q-offsets FILE.npy  int32 or int64 [requests + 1]: Q is [rows, query heads,\n"
    "                      d], and request r has its rows offsets[r] to\n"
    "                      offsets[r+1] - 1, which stand at its newest tokens\n"
    "  --tree-mask FILE.npy  bool, int8 or uint8 [rows, N]: which of its request's\n"
    "                      newest N tokens a row attends to\n"
    "  --k-scales FILE.npy  of K in codes: [1], [KV heads], [KV heads, d], or\n"
    "                      [pages, page size, KV heads, n] with n 1, d/32 or d/64;\n"
    "                      float32, float16 or bfloat16\n"
    "  --v-scales FILE.npy  likewise of V\n"
    "  --k-zeros FILE.npy  int8, in the shape of the scales: zero points of K\n"
    "  --v-zeros FILE.npy  likewise of V\n"
    "  --tensors FILE.safetensors   tensors q, k, v, table, kv_lens and, if there are\n"
    "                      any, offsets, sinks, alibi, q_offsets, tree_mask,\n"
    "                      k_scales, v_scales, k_zeros, v_zeros; a .npy option goes\n"
    "                      before the tensor\n"
    "  --name-q NAME       the tensor is called NAME; also --name-k, --name-v,\n"
    "                      --name-table, --name-kv-lens, --name-offsets,\n"
    "                      --name-sinks, --name-alibi, --name-q-offsets,\n"
    "                      --name-tree-mask, --name-k-scales, --name-v-scales,\n"
    "                      --name-k-zeros and --name-v-zeros\n"
    "  --bf16              uint16 .npy arrays hold bfloat16\n"
    "  --kv-dtype DTYPE    what uint8 arrays of K and V hold: fp8_e4m3, fp8_e5m2 or\n"
    "                      int4, two to a byte; int8 and what safetensors call\n"
    "                      F8_E4M3 and F8_E5M2 need no word\n"
    "  --mla DV            V is the first DV channels of K: without --v\n"
    "\n"
    "  --out FILE.npy      [rows, query heads, dv]; bfloat16 as uint16\n"
    "  --lse FILE.npy      float32 [rows, query heads]: log of the sum of exp\n"
    "  --out-dtype DTYPE   f32, f16 or bf16; that of Q where left out\n"
    "\n"
    "  --scale X           factor of q.k; 1/sqrt(d) where left out and dv is d\n"
    "  --causal            a row attends to no token behind its own\n"
    "  --window N          a row attends to N tokens up to its own only\n"
    "  --window-right N    a row attends to N tokens from its own on, and before\n"
    "  --chunk N           a row attends to tokens t with t / N as its own only\n"
    "  --softcap X         scores become X tanh(score / X)\n"
    "  --layout LAYOUT     nhd as above; hnd: [pages, KV heads, page size, channels]\n"
    "  --split POLICY      auto, none, size:TOKENS or count:SPLITS\n"
    "  --threads N         as many as this process has CPUs where left out\n"
    "  --isa NAME          auto, scalar, avx2, avx512, avx512bf16, avx512vnni, neon\n"
    "  --arithmetic CLASS  f32; bf16, int8: dot products of these are allowed, too\n"
    "  --json              what was done as a JSON object\n"
    "\n"
    "An output file is complete or not there: it is written beside its place and then\n"
    "renamed. On any error the file that was there before is untouched.\n";

/* ── options ────────────────────────────────────────────────────────────────────────────────── */

/* Options that are words of the problem grammar: their values are read by its parser. */
typedef enum word_option {
  OPTION_SCALE,
  OPTION_LAYOUT,
  OPTION_SPLIT,
  OPTION_THREADS,
  OPTION_ISA,
  OPTION_ARITHMETIC,
  OPTION_WINDOW,
  OPTION_SOFTCAP,
  OPTION_OUT_DTYPE,
  OPTION_WINDOW_RIGHT,
  OPTION_CHUNK,
  OPTION_KV_DTYPE,
  OPTION_MLA,
  N_WORD_OPTIONS
} word_option;

static const struct {
  const char *option, *word;
} word_options[N_WORD_OPTIONS] = {
    [OPTION_SCALE] = {"--scale", "scale"},
    [OPTION_LAYOUT] = {"--layout", "layout"},
    [OPTION_SPLIT] = {"--split", "split"},
    [OPTION_THREADS] = {"--threads", "threads"},
    [OPTION_ISA] = {"--isa", "isa"},
    [OPTION_ARITHMETIC] = {"--arithmetic", "arithmetic"},
    [OPTION_WINDOW] = {"--window", "window"},
    [OPTION_SOFTCAP] = {"--softcap", "softcap"},
    [OPTION_OUT_DTYPE] = {"--out-dtype", "dtype_out"},
    [OPTION_WINDOW_RIGHT] = {"--window-right", "window_right"},
    [OPTION_CHUNK] = {"--chunk", "chunk"},
    [OPTION_KV_DTYPE] = {"--kv-dtype", "kv_dtype"},
    [OPTION_MLA] = {"--mla", "dv"},
};

/* Options without a value. */
static const char *const flag_options[] = {"--json", "--bf16", "--causal"};
enum { N_FLAG_OPTIONS = sizeof flag_options / sizeof flag_options[0] };

typedef struct run_options {
  run_sources sources;
  const char *out_path, *lse_path; /* lse_path may be NULL */
  const char *words[N_WORD_OPTIONS];
  bool is_json, is_causal;
} run_options;

/* Where a flag is kept; NULL for an option that is none. */
static bool *flag_place(run_options *options, const char *option) {
  bool *const places[N_FLAG_OPTIONS] = {&options->is_json, &options->sources.is_bf16,
                                        &options->is_causal};
  for (int i = 0; i < N_FLAG_OPTIONS; i++) {
    if (strcmp(option, flag_options[i]) == 0) return places[i];
  }
  return NULL;
}

/* Where the value of an option goes; NULL for an option that has none or is unknown. */
static const char **value_place(run_options *options, const char *option) {
  const struct {
    const char *option;
    const char **place;
  } files[] = {{"--tensors", &options->sources.tensors_path},
               {"--out", &options->out_path},
               {"--lse", &options->lse_path}};
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    if (strcmp(option, files[i].option) == 0) return files[i].place;
  }
  for (int i = 0; i < N_WORD_OPTIONS; i++) {
    if (strcmp(option, word_options[i].option) == 0) return &options->words[i];
  }
  for (int role = 0; role < RUN_N_ROLES; role++) {
    if (strcmp(option, run_role_name_option((run_role)role)) == 0)
      return &options->sources.names[role];
    if (strcmp(option, run_role_option((run_role)role)) == 0) return &options->sources.paths[role];
  }
  return NULL;
}

static int unknown_option(const char *option) {
  const char *names[RUN_N_ROLES + N_WORD_OPTIONS + N_FLAG_OPTIONS + 3] = {"--tensors", "--out",
                                                                          "--lse"};
  size_t n = 3;
  for (int i = 0; i < N_FLAG_OPTIONS; i++)
    names[n++] = flag_options[i];
  for (int i = 0; i < N_WORD_OPTIONS; i++)
    names[n++] = word_options[i].option;
  for (int role = 0; role < RUN_N_ROLES; role++)
    names[n++] = run_role_option((run_role)role);
  const char *near = tool_near_word(option, names, n);
  if (near != NULL) return tool_usage_error("%s: unknown option, did you mean %s?", option, near);
  return tool_usage_error("%s: unknown option; 'splitkv help run' lists them", option);
}

/* "--name value" or "--name=value" at argv[*index]. */
static int parse_value_option(int argc, char **argv, int *index, run_options *options) {
  char name[40];
  const char *argument = argv[*index];
  const char *equals = strchr(argument, '=');
  const size_t n = equals != NULL ? (size_t)(equals - argument) : strlen(argument);
  if (n >= sizeof name) return unknown_option(argument);
  memcpy(name, argument, n);
  name[n] = 0;
  const char **place = value_place(options, name);
  if (flag_place(options, name) != NULL) return tool_usage_error("%s: takes no value", name);
  if (place == NULL) return unknown_option(name);
  if (*place != NULL) return tool_usage_error("%s: is given twice", name);
  *place = equals != NULL ? equals + 1 : tool_option_value(argc, argv, index);
  return *place != NULL ? TOOL_OK : TOOL_USAGE;
}

static int parse_options(int argc, char **argv, run_options *options) {
  for (int i = 0; i < argc; i++) {
    int status = TOOL_OK;
    bool *flag = flag_place(options, argv[i]);
    if (flag != NULL)
      *flag = true;
    else
      status = parse_value_option(argc, argv, &i, options);
    if (status != TOOL_OK) return status;
  }
  return TOOL_OK;
}

static int parse_words(run_options *options, problem_spec *spec) {
  for (int i = 0; i < N_WORD_OPTIONS; i++) {
    const char *value = options->words[i];
    const int status = value == NULL ? TOOL_OK
                                     : options_read_word(spec, word_options[i].option,
                                                         word_options[i].word, value);
    if (status != TOOL_OK) return status;
  }
  options->sources.has_kv_dtype = options->words[OPTION_KV_DTYPE] != NULL;
  options->sources.kv_dtype = (splitkv_dtype)spec->dtype_kv;
  options->sources.mla_channels = options->words[OPTION_MLA] != NULL ? spec->dv : 0;
  const int status = run_sources_check(&options->sources);
  if (status != TOOL_OK) return status;
  return options->out_path != NULL ? TOOL_OK : tool_usage_error("--out FILE.npy is missing");
}

/* ── the work ───────────────────────────────────────────────────────────────────────────────── */

typedef struct run_job {
  run_options options;
  problem_spec spec;
  run_input input;
  splitkv_problem problem;
  splitkv_batch batch;
  splitkv_plan *plan;
  splitkv_threads *threads;
  void *out;
  float *lse;
  void *workspace;
  int64_t out_shape[3]; /* lse has the first two */
  size_t out_bytes, lse_bytes;
  double seconds;
} run_job;

static array_dtype out_array_dtype(splitkv_dtype dtype) {
  return dtype == SPLITKV_F32 ? ARRAY_F32 : dtype == SPLITKV_F16 ? ARRAY_F16 : ARRAY_BF16;
}

/* Statuses that an option of the grammar caused; the others are about a tensor. */
static int library_error(const run_job *job, splitkv_status status, const splitkv_error *error) {
  static const struct {
    splitkv_status status;
    word_option option;
  } causes[] = {
      {SPLITKV_ERROR_ISA_UNAVAILABLE, OPTION_ISA}, {SPLITKV_ERROR_ISA_UNKNOWN, OPTION_ISA},
      {SPLITKV_ERROR_ARITHMETIC, OPTION_ISA},      {SPLITKV_ERROR_ISA_DTYPE, OPTION_ISA},
      {SPLITKV_ERROR_SPLIT_VALUE, OPTION_SPLIT},   {SPLITKV_ERROR_SCALE, OPTION_SCALE},
      {SPLITKV_ERROR_SOFTCAP, OPTION_SOFTCAP},     {SPLITKV_ERROR_MASK, OPTION_WINDOW_RIGHT}};
  for (size_t i = 0; i < sizeof causes / sizeof causes[0]; i++) {
    const char *value = job->options.words[causes[i].option];
    char context[80];
    if (causes[i].status != status || value == NULL) continue;
    (void)snprintf(context, sizeof context, "%s %.40s", word_options[causes[i].option].option,
                   value);
    return tool_library_error(context, status, error);
  }
  return run_input_library_error(&job->input, status, error);
}

static int make_plan(run_job *job) {
  splitkv_error error = {.status = SPLITKV_OK};
  splitkv_problem *problem = &job->problem;
  splitkv_problem_init(problem);
  splitkv_batch_init(&job->batch);
  problem->layout = (splitkv_layout)job->spec.layout;
  const int exit_status = run_input_describe(&job->input, problem, &job->batch);
  if (exit_status != TOOL_OK) return exit_status;
  problem->split_policy = (splitkv_split_policy)job->spec.split;
  problem->split_value = job->spec.split_value;
  problem->isa = (splitkv_isa)job->spec.isa;
  problem->arithmetic = (splitkv_arithmetic)job->spec.arithmetic;
  problem->scale = (float)job->spec.scale;
  problem->window_tokens = job->spec.window;
  problem->logit_softcap = (float)job->spec.softcap;
  problem->window_right_tokens = job->spec.window_right;
  problem->chunk_tokens = job->spec.chunk;
  problem->flags |= job->options.is_causal ? SPLITKV_FLAG_CAUSAL : 0;
  if (job->options.words[OPTION_OUT_DTYPE] != NULL)
    problem->dtype_out = (splitkv_dtype)job->spec.dtype_out;
  job->batch.n_workers = job->spec.threads;
  if (problem->head_dim != problem->head_dim_v && job->options.words[OPTION_SCALE] == NULL)
    return tool_usage_error("--scale X is missing: Q and K have %" PRId64 " channels and V has "
                            "%" PRId64 ", so that 1/sqrt(d) may not be what you want",
                            problem->head_dim, problem->head_dim_v);
  splitkv_status status = splitkv_describe(problem, &error);
  if (status == SPLITKV_OK)
    status = splitkv_plan_create(problem, &job->batch, NULL, &job->plan, &error);
  return status == SPLITKV_OK ? TOOL_OK : library_error(job, status, &error);
}

/* Memory for results and scratch; at least a byte, so that NULL means that there is none. */
static int allocate(run_job *job) {
  file_array out = {.dtype = out_array_dtype(job->problem.dtype_out), .n_dims = 3};
  file_array lse = {.dtype = ARRAY_F32, .n_dims = 2};
  file_error error;
  job->out_shape[0] = lse.shape[0] = out.shape[0] = run_input_n_rows(&job->input);
  job->out_shape[1] = lse.shape[1] = out.shape[1] = job->problem.n_heads_q;
  job->out_shape[2] = out.shape[2] = job->problem.head_dim_v;
  if (!array_measure(&out, &error) || !array_measure(&lse, &error))
    return tool_usage_error("--out: %s", error.message);
  job->out_bytes = out.size_bytes;
  job->lse_bytes = lse.size_bytes;
  const size_t workspace_bytes = splitkv_plan_workspace_bytes(job->plan);
  const size_t rounded = (workspace_bytes + SPLITKV_ALIGNMENT - 1) / SPLITKV_ALIGNMENT;
  job->out = malloc(job->out_bytes + 1);
  job->lse = malloc(job->lse_bytes + 1);
  job->workspace =
      rounded > 0 ? aligned_alloc(SPLITKV_ALIGNMENT, rounded * SPLITKV_ALIGNMENT) : NULL;
  if (job->out == NULL || job->lse == NULL || (job->workspace == NULL && rounded > 0))
    return tool_unsupported("no memory for %zu bytes of output and %zu bytes of workspace",
                            job->out_bytes + job->lse_bytes, workspace_bytes);
  return TOOL_OK;
}

static int compute(run_job *job) {
  splitkv_error error = {.status = SPLITKV_OK};
  splitkv_status status = splitkv_threads_create(job->spec.threads, &job->threads, &error);
  if (status != SPLITKV_OK) {
    char context[40];
    (void)snprintf(context, sizeof context, "--threads %" PRId64, job->spec.threads);
    return tool_library_error(context, status, &error);
  }
  splitkv_tensors tensors;
  splitkv_tensors_init(&tensors);
  run_input_tensors(&job->input, &tensors);
  tensors.out = job->out;
  tensors.lse = job->lse;
  const double start = machine_seconds();
  status = splitkv_run(job->plan, &job->problem, &tensors, job->workspace,
                       splitkv_plan_workspace_bytes(job->plan), splitkv_threads_pool(job->threads),
                       &error);
  job->seconds = machine_seconds() - start;
  return status == SPLITKV_OK ? TOOL_OK : library_error(job, status, &error);
}

/* ── output ─────────────────────────────────────────────────────────────────────────────────── */

static int check_outputs(const run_options *options) {
  const struct {
    const char *option, *path;
  } outputs[] = {{"--out", options->out_path}, {"--lse", options->lse_path}};
  for (size_t i = 0; i < 2; i++) {
    if (outputs[i].path == NULL) continue;
    int status = run_sources_check_output(&options->sources, outputs[i].option, outputs[i].path);
    if (status == TOOL_OK) status = tool_probe_output(outputs[i].option, outputs[i].path);
    if (status != TOOL_OK) return status;
  }
  return TOOL_OK;
}

/* Both files are complete on the disk before either is put in place. */
static int write_outputs(const run_job *job) {
  const run_options *options = &job->options;
  output_file out = {.descriptor = -1}, lse = {.descriptor = -1};
  file_error error;
  const char *option = "--out", *path = options->out_path;
  bool ok = npy_create(path, out_array_dtype(job->problem.dtype_out), 3, job->out_shape, job->out,
                       job->out_bytes, &out, &error);
  if (ok && options->lse_path != NULL) {
    option = "--lse";
    path = options->lse_path;
    ok = npy_create(path, ARRAY_F32, 2, job->out_shape, job->lse, job->lse_bytes, &lse, &error);
    if (ok && out.temporary != NULL && strcmp(out.path, lse.path) == 0)
      ok = file_fail(&error, "is the file of --out");
    ok = ok && output_commit(&lse, &error);
  }
  if (ok) {
    option = "--out";
    path = options->out_path;
    ok = output_commit(&out, &error);
  }
  output_abandon(&out);
  output_abandon(&lse);
  return ok ? TOOL_OK : tool_file_error(option, path, &error);
}

static int report_json(const run_job *job, const splitkv_plan_info *info) {
  char split[40];
  problem_split_text(job->problem.split_policy, job->problem.split_value, split, sizeof split);
  cJSON *report = tool_json_report("run");
  const double shape[3] = {(double)job->out_shape[0], (double)job->out_shape[1],
                           (double)job->out_shape[2]};
  cJSON_AddStringToObject(report, "out", job->options.out_path);
  if (job->options.lse_path != NULL) cJSON_AddStringToObject(report, "lse", job->options.lse_path);
  cJSON_AddItemToObject(report, "shape", cJSON_CreateDoubleArray(shape, 3));
  cJSON_AddStringToObject(report, "dtype_q", problem_dtype_name(job->problem.dtype_q));
  cJSON_AddStringToObject(report, "dtype_kv", problem_dtype_name(job->problem.dtype_kv));
  cJSON_AddStringToObject(report, "k_scales", problem_scale_mode_name(job->problem.k_scale_mode));
  cJSON_AddStringToObject(report, "v_scales", problem_scale_mode_name(job->problem.v_scale_mode));
  cJSON_AddStringToObject(report, "dtype_out", problem_dtype_name(job->problem.dtype_out));
  cJSON_AddStringToObject(report, "kernel_set", info->kernel_set);
  cJSON_AddStringToObject(report, "policy", split);
  cJSON_AddNumberToObject(report, "splits", (double)info->n_splits);
  cJSON_AddNumberToObject(report, "threads", (double)job->spec.threads);
  cJSON_AddNumberToObject(report, "workspace_bytes", (double)info->workspace_bytes);
  cJSON_AddNumberToObject(report, "time_ms", job->seconds * 1e3);
  const int status = tool_print_json(report);
  cJSON_Delete(report);
  return status;
}

static int report_text(const run_job *job, const splitkv_plan_info *info) {
  char split[40];
  problem_split_text(job->problem.split_policy, job->problem.split_value, split, sizeof split);
  printf("out        %s [%" PRId64 ", %" PRId64 ", %" PRId64 "] %s\n", job->options.out_path,
         job->out_shape[0], job->out_shape[1], job->out_shape[2],
         problem_dtype_name(job->problem.dtype_out));
  if (job->options.lse_path != NULL)
    printf("lse        %s [%" PRId64 ", %" PRId64 "] f32\n", job->options.lse_path,
           job->out_shape[0], job->out_shape[1]);
  printf("kernels    %s\n", info->kernel_set);
  printf("split      %s, %" PRId64 " splits\n", split, info->n_splits);
  printf("threads    %" PRId64 "\n", job->spec.threads);
  printf("workspace  %zu bytes\n", info->workspace_bytes);
  printf("time       %.3f ms\n", job->seconds * 1e3);
  return TOOL_OK;
}

static int report(const run_job *job) {
  splitkv_error error = {.status = SPLITKV_OK};
  splitkv_plan_info info = {.struct_size = sizeof info};
  const splitkv_status status = splitkv_plan_get_info(job->plan, &info, &error);
  if (status != SPLITKV_OK) return tool_library_error("", status, &error);
  return job->options.is_json ? report_json(job, &info) : report_text(job, &info);
}

/* ── all of it ──────────────────────────────────────────────────────────────────────────────── */

static int parse_job(run_job *job, int argc, char **argv) {
  const int status = parse_options(argc, argv, &job->options);
  job->spec.threads = machine_default_threads();
  return status == TOOL_OK ? parse_words(&job->options, &job->spec) : status;
}

static int run_steps(run_job *job, int argc, char **argv) {
  int status = parse_job(job, argc, argv);
  if (status == TOOL_OK) status = run_input_load(&job->options.sources, &job->input);
  if (status == TOOL_OK) status = make_plan(job);
  if (status == TOOL_OK) status = check_outputs(&job->options);
  if (status == TOOL_OK) status = allocate(job);
  if (status == TOOL_OK) status = compute(job);
  if (status == TOOL_OK) status = write_outputs(job);
  return status == TOOL_OK ? report(job) : status;
}

int cmd_run(int argc, char **argv) {
  for (int i = 0; i < argc; i++) {
    if (tool_is_help(argv[i])) return tool_print_help("run");
  }
  run_job job = {0};
  problem_spec_init(&job.spec);
  const int status = run_steps(&job, argc, argv);
  splitkv_threads_destroy(job.threads);
  splitkv_plan_destroy(job.plan);
  free(job.workspace);
  free(job.lse);
  free(job.out);
  run_input_free(&job.input);
  problem_spec_free(&job.spec);
  return status;
}
