/* splitkv ascend run: the user's own tensors, by the kernel on a device or by its model.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "ascend.h"

#include "ascend_launch.h"
#include "machine.h"
#include "npy.h"
#include "run_input.h"
#include "tool.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>

typedef struct run_options {
  run_sources sources;
  ascend_device_choice choice;
  const char *out_path;
  int is_model, is_json, is_bf16;
} run_options;

/* Everything is zero before and owned after. */
typedef struct run_job {
  run_options options;
  problem_spec spec; /* the options that are words */
  run_input input;
  splitkv_problem problem;
  splitkv_batch batch;
  ascend_tiling t;
  ascend_launch l;
  splitkv_threads *threads;
  splitkv_ascend_device *device;
  void *out;
  int64_t out_shape[3];
  size_t out_bytes;
  double milliseconds;
  int is_empty; /* no request has tokens: out is 0, and nothing is launched */
} run_job;

/* ── options ────────────────────────────────────────────────────────────────────────────────── */

static int check_options(const run_options *options) {
  int status = run_sources_check(&options->sources);
  if (status) {
    return status;
  }
  if (!options->out_path) {
    return tool_usage_error("--out FILE.npy is missing");
  }
  if (!options->is_model && !options->choice.kernel_path) {
    return tool_usage_error("--kernel FILE.so is missing: the kernel's library, or --model");
  }
  if (options->is_model && options->choice.kernel_path) {
    return tool_usage_error("--model: goes without --kernel");
  }
  if (options->is_model && options->choice.runtime_path) {
    return tool_usage_error("--runtime: is for --kernel");
  }
  return TOOL_OK;
}

static int parse_options(run_job *job, int argc, char **argv) {
  run_options *options = &job->options;
  option_rule rules[32] = {{"--json", OPTION_FLAG, &options->is_json},
                           {"--bf16", OPTION_FLAG, &options->is_bf16},
                           {"--model", OPTION_FLAG, &options->is_model},
                           {"--kernel", OPTION_TEXT, &options->choice.kernel_path},
                           {"--runtime", OPTION_TEXT, &options->choice.runtime_path},
                           {"--device", OPTION_NUMBER, &options->choice.device},
                           {"--tensors", OPTION_TEXT, &options->sources.tensors_path},
                           {"--out", OPTION_TEXT, &options->out_path},
                           {"--scale", OPTION_WORD, &job->spec},
                           {"--cores", OPTION_WORD, &job->spec},
                           {"--rule", OPTION_WORD, &job->spec},
                           {"--threads", OPTION_WORD, &job->spec}};
  size_t n = 12;
  for (int role = 0; role < RUN_N_ROLES; role++) {
    if (role > RUN_KV_LENS) {
      continue; /* the kernel reads dense tables of floats, and has no variants */
    }
    rules[n++] =
        (option_rule){run_role_option((run_role)role), OPTION_TEXT, &options->sources.paths[role]};
    rules[n++] = (option_rule){run_role_name_option((run_role)role), OPTION_TEXT,
                               &options->sources.names[role]};
  }
  int status = options_parse(argc, argv, rules, n, NULL);
  options->sources.is_bf16 = options->is_bf16 != 0;
  options->sources.takes_floats = true;
  return status ? status : check_options(options);
}

/* ── the work ───────────────────────────────────────────────────────────────────────────────── */

static int make_words(run_job *job) {
  splitkv_error error = {0};
  splitkv_problem_init(&job->problem);
  splitkv_batch_init(&job->batch);
  int status = run_input_describe(&job->input, &job->problem, &job->batch);
  if (status) {
    return status;
  }
  job->problem.scale = (float)job->spec.scale;
  /* Ids of 64 bits are narrowed below, once the lengths are known to be good. */
  job->problem.table_type = SPLITKV_I32;
  splitkv_ascend_target target;
  splitkv_ascend_target_init(&target);
  target.n_cores = job->spec.cores;
  target.rule = (splitkv_ascend_rule)job->spec.rule;
  splitkv_status tiled = ascend_tiling_make(&job->t, &job->problem, &job->batch, &target, &error);
  job->is_empty = tiled == SPLITKV_ERROR_ASCEND_EMPTY ||
                  (tiled == SPLITKV_ERROR_N_REQUESTS && job->batch.n_requests == 0);
  if (job->is_empty) {
    return TOOL_OK;
  }
  if (tiled != SPLITKV_OK) {
    return run_input_library_error(&job->input, tiled, &error);
  }
  status = run_input_check_pages(&job->input, &job->problem);
  return status ? status : run_input_narrow_table(&job->input);
}

static int make_out(run_job *job) {
  const file_array *q = &job->input.arrays[RUN_Q];
  for (int i = 0; i < 3; i++) {
    job->out_shape[i] = q->shape[i];
  }
  job->out_bytes = q->size_bytes; /* one type, one shape */
  job->out = calloc(job->out_bytes + 1, 1);
  return job->out ? TOOL_OK : tool_unsupported("no memory for %zu bytes of output", job->out_bytes);
}

static int make_launch(run_job *job) {
  static const struct {
    run_role role;
    splitkv_ascend_buffer buffer;
  } tensors[] = {{RUN_K, SPLITKV_ASCEND_K},
                 {RUN_V, SPLITKV_ASCEND_V},
                 {RUN_TABLE, SPLITKV_ASCEND_BLOCK_TABLE}};
  ascend_launch_init(&job->l, &job->t.exact);
  for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
    const file_array *array = &job->input.arrays[tensors[i].role];
    ascend_launch_tensor(&job->l, tensors[i].buffer, array->data, array->size_bytes);
  }
  const file_array *q = &job->input.arrays[RUN_Q];
  int status = ascend_launch_q(&job->l, q->data, q->size_bytes, job->problem.head_dim);
  if (status) {
    return status;
  }
  ascend_launch_tensor(&job->l, SPLITKV_ASCEND_OUT, job->out, job->out_bytes);
  return TOOL_OK;
}

static int run_model(run_job *job) {
  splitkv_error error = {0};
  int status = ascend_launch_allocate(&job->l, &job->t.exact);
  if (status) {
    return status;
  }
  splitkv_status ran = splitkv_threads_create(job->spec.threads, &job->threads, &error);
  if (ran != SPLITKV_OK) {
    return tool_library_error("--threads", ran, &error);
  }
  double start = machine_seconds();
  ran = splitkv_ascend_model_run(job->t.words, job->t.info.n_words, job->t.info.n_groups,
                                 &job->l.memory, 0, splitkv_threads_pool(job->threads), NULL, NULL,
                                 &error);
  job->milliseconds = (machine_seconds() - start) * 1e3;
  return ran == SPLITKV_OK ? TOOL_OK : run_input_library_error(&job->input, ran, &error);
}

static int run_device(run_job *job) {
  splitkv_error error = {0};
  float milliseconds = 0;
  int status = ascend_open_device(&job->options.choice, &job->device);
  if (status) {
    return status;
  }
  splitkv_status ran =
      splitkv_ascend_device_run(job->device, job->t.words, job->t.info.n_words,
                                job->t.info.n_groups, &job->l.memory, 1, &milliseconds, &error);
  job->milliseconds = (double)milliseconds;
  return ran == SPLITKV_OK ? TOOL_OK : tool_library_error("", ran, &error);
}

/* ── output ─────────────────────────────────────────────────────────────────────────────────── */

static int write_out(const run_job *job) {
  output_file output = {.descriptor = -1};
  file_error error;
  array_dtype dtype = job->problem.dtype_out == SPLITKV_F16 ? ARRAY_F16 : ARRAY_BF16;
  int ok = npy_create(job->options.out_path, dtype, 3, job->out_shape, job->out, job->out_bytes,
                      &output, &error) &&
           output_commit(&output, &error);
  output_abandon(&output);
  return ok ? TOOL_OK : tool_file_error("--out", job->options.out_path, &error);
}

static int report_json(const run_job *job, uint64_t scratch_bytes) {
  const splitkv_ascend_info *info = &job->t.info;
  const double shape[3] = {(double)job->out_shape[0], (double)job->out_shape[1],
                           (double)job->out_shape[2]};
  cJSON *report = tool_json_report("ascend run");
  cJSON_AddStringToObject(report, "out", job->options.out_path);
  cJSON_AddItemToObject(report, "shape", cJSON_CreateDoubleArray(shape, 3));
  cJSON_AddStringToObject(report, "dtype", problem_dtype_name(job->problem.dtype_out));
  cJSON_AddStringToObject(report, "by", job->options.is_model ? "model" : "device");
  cJSON_AddStringToObject(report, "rule", problem_rule_name(job->spec.rule));
  const struct {
    const char *key;
    double value;
  } numbers[] = {{"cores", (double)job->spec.cores},       {"key", (double)info->key},
                 {"groups", (double)info->n_groups},       {"splits", (double)info->n_splits},
                 {"scratch_bytes", (double)scratch_bytes}, {"time_ms", job->milliseconds}};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    cJSON_AddNumberToObject(report, numbers[i].key, numbers[i].value);
  }
  int status = tool_print_json(report);
  cJSON_Delete(report);
  return status;
}

static int report(const run_job *job) {
  const splitkv_ascend_info *info = &job->t.info;
  uint64_t scratch_bytes = 0;
  for (int i = 0; i < SPLITKV_ASCEND_N_SCRATCH; i++) {
    scratch_bytes += job->t.exact.bytes[i];
  }
  if (job->options.is_json) {
    return report_json(job, scratch_bytes);
  }
  printf("out      %s [%lld, %lld, %lld] %s\n", job->options.out_path, (long long)job->out_shape[0],
         (long long)job->out_shape[1], (long long)job->out_shape[2],
         problem_dtype_name(job->problem.dtype_out));
  if (job->is_empty) {
    printf("launch   none: no request has tokens, out is 0\n");
    return TOOL_OK;
  }
  printf("key      %lld: %s\n", (long long)info->key, ascend_key_text(info->key));
  printf("groups   %lld on %lld cores\n", (long long)info->n_groups, (long long)job->spec.cores);
  printf("splits   %lld\n", (long long)info->n_splits);
  printf("scratch  %llu bytes\n", (unsigned long long)scratch_bytes);
  printf("time     %.3f ms%s\n", job->milliseconds,
         job->options.is_model ? " of the model on this CPU" : "");
  return TOOL_OK;
}

/* ── all of it ──────────────────────────────────────────────────────────────────────────────── */

static int run_steps(run_job *job, int argc, char **argv) {
  int status = parse_options(job, argc, argv);
  status = status ? status : run_input_load(&job->options.sources, &job->input);
  status = status ? status : make_words(job);
  status = status ? status
                  : run_sources_check_output(&job->options.sources, "--out", job->options.out_path);
  status = status ? status : tool_probe_output("--out", job->options.out_path);
  status = status ? status : make_out(job);
  if (!status && !job->is_empty) {
    status = make_launch(job);
    status = status ? status : job->options.is_model ? run_model(job) : run_device(job);
  }
  status = status ? status : write_out(job);
  return status ? status : report(job);
}

int ascend_run(int argc, char **argv) {
  run_job job = {.options = {.choice = ASCEND_DEVICE_CHOICE}};
  problem_spec_init(&job.spec);
  job.spec.device = PROBLEM_ASCEND;
  job.spec.threads = machine_default_threads();
  int status = run_steps(&job, argc, argv);
  splitkv_ascend_device_close(job.device);
  splitkv_threads_destroy(job.threads);
  ascend_launch_free(&job.l);
  ascend_tiling_free(&job.t);
  free(job.out);
  run_input_free(&job.input);
  problem_spec_free(&job.spec);
  return status;
}
