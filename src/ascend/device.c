/* Launching the kernel: its library and the Ascend runtime, loaded with dlopen.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * No header of the runtime is needed to build this: the functions that are called have their types
 * here, as the runtime's documentation gives them. A run takes all that it needs and gives all of
 * it back, the stream too, so that a launch that failed leaves nothing behind for the next one.
 * What the caller gets is copied to him only after everything, giving back included, has succeeded.
 */
#include <splitkv/ascend.h>

#include "../error.h"
#include "words.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Codes and enumerators of the runtime. */
enum { ACL_SUCCESS = 0, ACL_REPEAT_INITIALIZE = 100002 };
enum { ACL_MALLOC_HUGE_FIRST = 0 };
enum { ACL_HOST_TO_DEVICE = 1, ACL_DEVICE_TO_HOST = 2 };

/* Launches that are queued before the stream is waited for. Events are a limited good of the
 * device, so their number does not grow with that of the launches. */
enum { MAX_QUEUED = 32 };

typedef struct acl_functions {
  int (*init)(const char *config_path);
  int (*set_device)(int32_t device_id);
  int (*reset_device)(int32_t device_id);
  int (*get_current_context)(void **context);
  int (*set_current_context)(void *context);
  int (*create_stream)(void **stream);
  int (*destroy_stream)(void *stream);
  int (*synchronize_stream)(void *stream);
  int (*take)(void **address, size_t size_bytes, int policy);
  int (*give)(void *address);
  int (*copy)(void *dst, size_t dst_bytes, const void *src, size_t size_bytes, int kind);
  int (*fill)(void *dst, size_t dst_bytes, int32_t value, size_t size_bytes);
  int (*create_event)(void **event);
  int (*destroy_event)(void *event);
  int (*record_event)(void *event, void *stream);
  int (*event_elapsed_time)(float *milliseconds, void *start, void *end);
  const char *(*get_recent_err_msg)(void); /* NULL where the runtime has none */
} acl_functions;

/* The kernel's launcher. Every pointer is an address on the device. */
typedef void launch_function(uint32_t n_groups, void *stream, uint8_t *q, uint8_t *k, uint8_t *v,
                             uint8_t *block_table, uint8_t *mask, uint8_t *deq_scale1,
                             uint8_t *offset1, uint8_t *deq_scale2, uint8_t *offset2,
                             uint8_t *razor_offset, uint8_t *scale, uint8_t *log_n, uint8_t *eye,
                             uint8_t *out, uint8_t *s, uint8_t *p, uint8_t *o_tmp, uint8_t *go,
                             uint8_t *o_core, uint8_t *l, uint8_t *k16, uint8_t *v16,
                             uint8_t *words);

struct splitkv_ascend_device {
  acl_functions acl;
  launch_function *launch;
  void *context; /* of the runtime, the default one of the device */
  int32_t device_id;
};

/* ── loading ────────────────────────────────────────────────────────────────────────────────── */

typedef struct symbol {
  const char *name;
  size_t offset; /* of the function pointer in its struct */
  bool is_optional;
} symbol;

static const symbol acl_symbols[] = {
    {"aclInit", offsetof(acl_functions, init), false},
    {"aclrtSetDevice", offsetof(acl_functions, set_device), false},
    {"aclrtResetDevice", offsetof(acl_functions, reset_device), false},
    {"aclrtGetCurrentContext", offsetof(acl_functions, get_current_context), false},
    {"aclrtSetCurrentContext", offsetof(acl_functions, set_current_context), false},
    {"aclrtCreateStream", offsetof(acl_functions, create_stream), false},
    {"aclrtDestroyStream", offsetof(acl_functions, destroy_stream), false},
    {"aclrtSynchronizeStream", offsetof(acl_functions, synchronize_stream), false},
    {"aclrtMalloc", offsetof(acl_functions, take), false},
    {"aclrtFree", offsetof(acl_functions, give), false},
    {"aclrtMemcpy", offsetof(acl_functions, copy), false},
    {"aclrtMemset", offsetof(acl_functions, fill), false},
    {"aclrtCreateEvent", offsetof(acl_functions, create_event), false},
    {"aclrtDestroyEvent", offsetof(acl_functions, destroy_event), false},
    {"aclrtRecordEvent", offsetof(acl_functions, record_event), false},
    {"aclrtEventElapsedTime", offsetof(acl_functions, event_elapsed_time), false},
    {"aclGetRecentErrMsg", offsetof(acl_functions, get_recent_err_msg), true},
};
static const symbol kernel_symbols[] = {
    {"call_kernel", offsetof(splitkv_ascend_device, launch), false},
};

/* What POSIX promises of dlsym. */
_Static_assert(sizeof(void *) == sizeof(launch_function *), "one form for all addresses");

/* Loads a library and writes its functions into *functions. It is never unloaded: neither the
 * runtime nor a library that registers kernels with it is made for that. */
static splitkv_status load(const char *field, const char *path, int mode, const symbol *symbols,
                           size_t n_symbols, void *functions, splitkv_error *error) {
  if (path[0] == '\0') { /* which dlopen takes for the program itself */
    return spl_fail(error, SPLITKV_ERROR_ASCEND_LIBRARY, field, 0, "an empty name is no library");
  }
  void *library = dlopen(path, mode);
  if (library == NULL) {
    const char *reason = dlerror();
    return spl_fail(error, SPLITKV_ERROR_ASCEND_LIBRARY, field, 0, "%s",
                    reason != NULL ? reason : path);
  }
  for (size_t i = 0; i < n_symbols; i++) {
    void *address = dlsym(library, symbols[i].name);
    if (address == NULL && !symbols[i].is_optional) {
      return spl_fail(error, SPLITKV_ERROR_ASCEND_SYMBOL, symbols[i].name, 0,
                      "%s has no such function", path);
    }
    /* C has no cast from an object pointer to a function pointer; POSIX gives them one form. */
    memcpy((char *)functions + symbols[i].offset, &address, sizeof address);
  }
  return SPLITKV_OK;
}

/* ── calls of the runtime ───────────────────────────────────────────────────────────────────── */

/* The error of a call: its name is the field, its code the value, the runtime's own words follow.
 * They can be many lines; the first says what happened. `subject` is what the call was about, or
 * "". */
static splitkv_status call_failed(const acl_functions *acl, const char *function, int code,
                                  const char *subject, splitkv_error *error) {
  const char *text = acl->get_recent_err_msg != NULL ? acl->get_recent_err_msg() : NULL;
  if (text == NULL) {
    text = "";
  }
  text += strspn(text, " \t\r\n");
  const int length = (int)strcspn(text, "\r\n");
  const char *join = length > 0 ? ": " : "";
  return spl_fail(error, SPLITKV_ERROR_ASCEND_RUNTIME, function, code, "%s%scode %d%s%.*s", subject,
                  subject[0] != '\0' ? ", " : "", code, join, length, text);
}

/* Initialises the runtime and takes the device. Another part of the process may have initialised
 * the runtime, and may still need it when this device is closed: aclFinalize is left to it. */
static splitkv_status take_device(splitkv_ascend_device *device, splitkv_error *error) {
  const acl_functions *acl = &device->acl;
  int code = acl->init(NULL);
  if (code != ACL_SUCCESS && code != ACL_REPEAT_INITIALIZE) {
    return call_failed(acl, "aclInit", code, "", error);
  }
  code = acl->set_device(device->device_id);
  if (code != ACL_SUCCESS) {
    return call_failed(acl, "aclrtSetDevice", code, "", error);
  }
  code = acl->get_current_context(&device->context);
  if (code != ACL_SUCCESS) {
    splitkv_status status = call_failed(acl, "aclrtGetCurrentContext", code, "", error);
    (void)acl->reset_device(device->device_id);
    return status;
  }
  return SPLITKV_OK;
}

splitkv_status splitkv_ascend_device_open(const splitkv_ascend_device_options *options,
                                          splitkv_ascend_device **device, splitkv_error *error) {
  if (options == NULL || device == NULL) {
    return spl_fail_null(error, options == NULL ? "options" : "device");
  }
  splitkv_status status = spl_check_struct_size(error, "options.struct_size", options->struct_size,
                                                sizeof *options, sizeof *options);
  if (status != SPLITKV_OK) {
    return status;
  }
  if (options->kernel_path == NULL) {
    return spl_fail_null(error, "options.kernel_path");
  }
  splitkv_ascend_device *made = malloc(sizeof *made);
  if (made == NULL) {
    return spl_fail(error, SPLITKV_ERROR_OUT_OF_MEMORY, "device", 0, "no memory for the handle");
  }
  *made = (splitkv_ascend_device){.device_id = options->device_id};
  const char *runtime_path =
      options->runtime_path != NULL ? options->runtime_path : "libascendcl.so";
  /* The kernel's library may have been linked without naming the runtime that it calls, hence
   * RTLD_GLOBAL, and the runtime first. */
  status = load("options.runtime_path", runtime_path, RTLD_NOW | RTLD_GLOBAL, acl_symbols,
                sizeof acl_symbols / sizeof acl_symbols[0], &made->acl, error);
  if (status == SPLITKV_OK) {
    status = load("options.kernel_path", options->kernel_path, RTLD_NOW | RTLD_LOCAL,
                  kernel_symbols, sizeof kernel_symbols / sizeof kernel_symbols[0], made, error);
  }
  if (status == SPLITKV_OK) {
    status = take_device(made, error);
  }
  if (status != SPLITKV_OK) {
    free(made);
    return status;
  }
  *device = made;
  return SPLITKV_OK;
}

void splitkv_ascend_device_close(splitkv_ascend_device *device) {
  if (device == NULL) {
    return;
  }
  (void)device->acl.reset_device(device->device_id);
  free(device);
}

/* ── what a run is asked to do ──────────────────────────────────────────────────────────────── */

/* One run: what it was asked for and what it has taken. */
typedef struct launch_run {
  const splitkv_ascend_device *device;
  const uint32_t *words;
  uint32_t n_groups;
  const void *host[SPLITKV_ASCEND_N_BUFFERS]; /* what is copied to the device; NULL: nothing */
  uint64_t bytes[SPLITKV_ASCEND_N_BUFFERS];
  void *address[SPLITKV_ASCEND_N_BUFFERS]; /* on the device; NULL where bytes is 0 */
  void *stream;
  void *events[MAX_QUEUED + 1]; /* before, between and after the queued launches */
  splitkv_error *error;
} launch_run;

static int64_t n_requests(const uint32_t *words) {
  return words[W_BATCH];
}
static uint64_t row_elements(const uint32_t *words) {
  return (uint64_t)words[W_N_HEADS] * words[W_HEAD_DIM];
}
static uint64_t out_offset(const uint32_t *entry) {
  return spl_ascend_offset(entry + E_OUT_OFFSET);
}

static splitkv_status check_words(const uint32_t *words, int64_t n_words, splitkv_error *error) {
  if (n_words < SPLITKV_ASCEND_HEADER_WORDS) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_WORDS, "n_words", n_words,
                    "%lld words, but a header has %d", (long long)n_words,
                    SPLITKV_ASCEND_HEADER_WORDS);
  }
  if (words[W_HEADER_WORDS] != SPLITKV_ASCEND_HEADER_WORDS ||
      words[W_REQUEST_WORDS] != SPLITKV_ASCEND_REQUEST_WORDS) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_WORDS, "words", words[W_HEADER_WORDS],
                    "a header of %lu words and %lu a request, must be %d and %d",
                    (unsigned long)words[W_HEADER_WORDS], (unsigned long)words[W_REQUEST_WORDS],
                    SPLITKV_ASCEND_HEADER_WORDS, SPLITKV_ASCEND_REQUEST_WORDS);
  }
  const int64_t needed =
      SPLITKV_ASCEND_HEADER_WORDS + SPLITKV_ASCEND_REQUEST_WORDS * n_requests(words);
  if (n_requests(words) < 1 || n_words != needed) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_WORDS, "n_words", n_words,
                    "%lld words, but %lld requests have %lld", (long long)n_words,
                    (long long)n_requests(words), (long long)needed);
  }
  if (!spl_ascend_knows_key(words[W_KEY])) {
    /* The launch would succeed, and what is copied back would be nobody's. */
    return spl_fail(error, SPLITKV_ERROR_ASCEND_KEY, "words", words[W_KEY],
                    "the kernel does not know key %lu and would do nothing",
                    (unsigned long)words[W_KEY]);
  }
  return SPLITKV_OK;
}

/* The rows that this side writes lie inside of out. */
static splitkv_status check_empty_rows(const uint32_t *words, uint64_t out_bytes,
                                       splitkv_error *error) {
  const uint64_t out_elements = out_bytes / 2;
  const uint64_t row = row_elements(words);
  for (int64_t r = 0; r < n_requests(words); r++) {
    const uint32_t *entry = spl_ascend_entry(words, r);
    if (entry[E_KV_LEN] != 0) {
      continue;
    }
    if (row > out_elements || out_offset(entry) > out_elements - row) {
      return spl_fail(error, SPLITKV_ERROR_ASCEND_WORDS, "words", r,
                      "the row of request %lld, at element %llu, is outside of out (%llu bytes)",
                      (long long)r, (unsigned long long)out_offset(entry),
                      (unsigned long long)out_bytes);
    }
  }
  return SPLITKV_OK;
}

/* Tensors need data where they have bytes; scratch needs bytes only. */
static splitkv_status check_memory(const splitkv_ascend_memory *memory, splitkv_error *error) {
  splitkv_status status = spl_check_struct_size(error, "memory.struct_size", memory->struct_size,
                                                sizeof *memory, sizeof *memory);
  if (status != SPLITKV_OK) {
    return status;
  }
  for (int b = 0; b < SPLITKV_ASCEND_WORDS; b++) {
    if ((uint64_t)(size_t)memory->bytes[b] != memory->bytes[b]) {
      return spl_fail(error, SPLITKV_ERROR_OVERFLOW, "memory.bytes", b,
                      "%s has more bytes than this machine can address",
                      splitkv_ascend_buffer_name((splitkv_ascend_buffer)b));
    }
    if (b >= SPLITKV_ASCEND_Q && memory->bytes[b] > 0 && memory->data[b] == NULL) {
      return spl_fail(error, SPLITKV_ERROR_NULL_POINTER, "memory.data", b,
                      "%s has %llu bytes but no data",
                      splitkv_ascend_buffer_name((splitkv_ascend_buffer)b),
                      (unsigned long long)memory->bytes[b]);
    }
  }
  return SPLITKV_OK;
}

static splitkv_status check_arguments(const splitkv_ascend_device *device, const uint32_t *words,
                                      int64_t n_words, int64_t n_groups,
                                      const splitkv_ascend_memory *memory, int64_t n_launches,
                                      splitkv_error *error) {
  if (device == NULL || words == NULL || memory == NULL) {
    return spl_fail_null(error, device == NULL ? "device" : words == NULL ? "words" : "memory");
  }
  splitkv_status status = spl_check_pointer(error, "words", words, 1, sizeof *words);
  if (status == SPLITKV_OK) {
    status = check_memory(memory, error);
  }
  if (status != SPLITKV_OK) {
    return status;
  }
  if (n_groups < 1 || n_groups > SPLITKV_ASCEND_MAX_CORES) {
    return spl_fail(error, SPLITKV_ERROR_ASCEND_CORES, "n_groups", n_groups,
                    "n_groups is %lld, must be 1 to %d", (long long)n_groups,
                    SPLITKV_ASCEND_MAX_CORES);
  }
  status = check_words(words, n_words, error);
  if (status == SPLITKV_OK) {
    status = check_empty_rows(words, memory->bytes[SPLITKV_ASCEND_OUT], error);
  }
  if (status == SPLITKV_OK && n_launches < 1) {
    return spl_fail(error, SPLITKV_ERROR_INDEX, "n_launches", n_launches,
                    "n_launches is %lld, must be at least 1", (long long)n_launches);
  }
  return status;
}

/* ── the run ────────────────────────────────────────────────────────────────────────────────── */

static splitkv_status run_failed(const launch_run *run, const char *function, int code) {
  return call_failed(&run->device->acl, function, code, "", run->error);
}

static splitkv_status buffer_failed(const launch_run *run, const char *function, int code, int b) {
  char subject[64];
  (void)snprintf(subject, sizeof subject, "%s (%llu bytes)",
                 splitkv_ascend_buffer_name((splitkv_ascend_buffer)b),
                 (unsigned long long)run->bytes[b]);
  return call_failed(&run->device->acl, function, code, subject, run->error);
}

static splitkv_status take_stream_and_events(launch_run *run, int64_t n_events) {
  const acl_functions *acl = &run->device->acl;
  int code = acl->create_stream(&run->stream);
  if (code != ACL_SUCCESS) {
    run->stream = NULL;
    return run_failed(run, "aclrtCreateStream", code);
  }
  for (int64_t i = 0; i < n_events; i++) {
    code = acl->create_event(&run->events[i]);
    if (code != ACL_SUCCESS) {
      run->events[i] = NULL;
      return run_failed(run, "aclrtCreateEvent", code);
    }
  }
  return SPLITKV_OK;
}

/* Exactly the bytes that were asked for, and none for nothing: a null pointer is what the kernel
 * takes for a mask that is not there. Scratch is not initialised, and neither is out. */
static splitkv_status take_memory(launch_run *run) {
  const acl_functions *acl = &run->device->acl;
  for (int b = 0; b < SPLITKV_ASCEND_N_BUFFERS; b++) {
    if (run->bytes[b] == 0) {
      continue;
    }
    const size_t bytes = (size_t)run->bytes[b];
    int code = acl->take(&run->address[b], bytes, ACL_MALLOC_HUGE_FIRST);
    if (code != ACL_SUCCESS) {
      run->address[b] = NULL;
      return buffer_failed(run, "aclrtMalloc", code, b);
    }
    if (run->host[b] != NULL) {
      code = acl->copy(run->address[b], bytes, run->host[b], bytes, ACL_HOST_TO_DEVICE);
      if (code != ACL_SUCCESS) {
        return buffer_failed(run, "aclrtMemcpy", code, b);
      }
    }
  }
  return SPLITKV_OK;
}

/* The kernel skips requests without tokens and leaves their rows as they are. */
static splitkv_status zero_empty_rows(const launch_run *run) {
  const size_t row_bytes = (size_t)row_elements(run->words) * 2;
  const size_t out_bytes = (size_t)run->bytes[SPLITKV_ASCEND_OUT];
  for (int64_t r = 0; r < n_requests(run->words) && row_bytes > 0; r++) {
    const uint32_t *entry = spl_ascend_entry(run->words, r);
    if (entry[E_KV_LEN] != 0) {
      continue;
    }
    const size_t at = (size_t)out_offset(entry) * 2;
    int code = run->device->acl.fill((char *)run->address[SPLITKV_ASCEND_OUT] + at, out_bytes - at,
                                     0, row_bytes);
    if (code != ACL_SUCCESS) {
      return buffer_failed(run, "aclrtMemset", code, SPLITKV_ASCEND_OUT);
    }
  }
  return SPLITKV_OK;
}

/* The arguments that are always NULL belong to int8, to compressed KV heads and to scales per
 * request; the words of splitkv_ascend_tile ask for none of them. */
static void launch(const launch_run *run) {
  void *const *at = run->address;
  run->device->launch(run->n_groups, run->stream, at[SPLITKV_ASCEND_Q], at[SPLITKV_ASCEND_K],
                      at[SPLITKV_ASCEND_V], at[SPLITKV_ASCEND_BLOCK_TABLE], at[SPLITKV_ASCEND_MASK],
                      NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, at[SPLITKV_ASCEND_OUT],
                      at[SPLITKV_ASCEND_S], at[SPLITKV_ASCEND_P], at[SPLITKV_ASCEND_O_TMP],
                      at[SPLITKV_ASCEND_GO], at[SPLITKV_ASCEND_O_CORE], at[SPLITKV_ASCEND_L],
                      at[SPLITKV_ASCEND_K16], at[SPLITKV_ASCEND_V16], at[SPLITKV_ASCEND_WORDS]);
}

/* Queues n launches with events around each, waits, and reads the times. */
static splitkv_status launch_queue(const launch_run *run, int64_t n, float *milliseconds) {
  const acl_functions *acl = &run->device->acl;
  for (int64_t i = 0; i <= n; i++) {
    if (i > 0) {
      launch(run);
    }
    int code = acl->record_event(run->events[i], run->stream);
    if (code != ACL_SUCCESS) {
      splitkv_status status = run_failed(run, "aclrtRecordEvent", code);
      (void)acl->synchronize_stream(run->stream); /* memory in use must not be given back */
      return status;
    }
  }
  int code = acl->synchronize_stream(run->stream);
  if (code != ACL_SUCCESS) {
    return run_failed(run, "aclrtSynchronizeStream", code);
  }
  for (int64_t i = 0; i < n; i++) {
    code = acl->event_elapsed_time(&milliseconds[i], run->events[i], run->events[i + 1]);
    if (code != ACL_SUCCESS) {
      return run_failed(run, "aclrtEventElapsedTime", code);
    }
  }
  return SPLITKV_OK;
}

/* Everything from the memory on the device to the results in memory of this run. */
static splitkv_status run_launches(launch_run *run, int64_t n_launches, float *milliseconds,
                                   void *out) {
  const acl_functions *acl = &run->device->acl;
  int code = acl->set_current_context(run->device->context);
  if (code != ACL_SUCCESS) {
    return run_failed(run, "aclrtSetCurrentContext", code);
  }
  const int64_t n_queued = n_launches < MAX_QUEUED ? n_launches : MAX_QUEUED;
  splitkv_status status = take_stream_and_events(run, n_queued + 1);
  if (status == SPLITKV_OK) {
    status = take_memory(run);
  }
  if (status == SPLITKV_OK) {
    status = zero_empty_rows(run);
  }
  for (int64_t done = 0; status == SPLITKV_OK && done < n_launches; done += MAX_QUEUED) {
    const int64_t left = n_launches - done;
    status = launch_queue(run, left < MAX_QUEUED ? left : MAX_QUEUED, milliseconds + done);
  }
  const size_t out_bytes = (size_t)run->bytes[SPLITKV_ASCEND_OUT];
  if (status != SPLITKV_OK || out_bytes == 0) {
    return status;
  }
  code = acl->copy(out, out_bytes, run->address[SPLITKV_ASCEND_OUT], out_bytes, ACL_DEVICE_TO_HOST);
  return code == ACL_SUCCESS ? SPLITKV_OK
                             : buffer_failed(run, "aclrtMemcpy", code, SPLITKV_ASCEND_OUT);
}

/* Gives back whatever the run has taken. The first error of a run is the one that is told. */
static splitkv_status give_back(const launch_run *run, splitkv_status status) {
  const acl_functions *acl = &run->device->acl;
  for (int b = 0; b < SPLITKV_ASCEND_N_BUFFERS; b++) {
    int code = run->address[b] != NULL ? acl->give(run->address[b]) : ACL_SUCCESS;
    if (code != ACL_SUCCESS && status == SPLITKV_OK) {
      status = buffer_failed(run, "aclrtFree", code, b);
    }
  }
  for (size_t i = 0; i < sizeof run->events / sizeof run->events[0]; i++) {
    int code = run->events[i] != NULL ? acl->destroy_event(run->events[i]) : ACL_SUCCESS;
    if (code != ACL_SUCCESS && status == SPLITKV_OK) {
      status = run_failed(run, "aclrtDestroyEvent", code);
    }
  }
  int code = run->stream != NULL ? acl->destroy_stream(run->stream) : ACL_SUCCESS;
  if (code != ACL_SUCCESS && status == SPLITKV_OK) {
    status = run_failed(run, "aclrtDestroyStream", code);
  }
  return status;
}

/* Memory for the results until they are the caller's: times first, then out. */
static float *take_results(int64_t n_launches, uint64_t out_bytes) {
  const uint64_t times_bytes_max = SIZE_MAX / 2;
  if ((uint64_t)n_launches > times_bytes_max / sizeof(float) || out_bytes > SIZE_MAX / 2) {
    return NULL;
  }
  return malloc((size_t)n_launches * sizeof(float) + (size_t)out_bytes);
}

splitkv_status splitkv_ascend_device_run(splitkv_ascend_device *device, const uint32_t *words,
                                         int64_t n_words, int64_t n_groups,
                                         const splitkv_ascend_memory *memory, int64_t n_launches,
                                         float *milliseconds, splitkv_error *error) {
  splitkv_status status =
      check_arguments(device, words, n_words, n_groups, memory, n_launches, error);
  if (status != SPLITKV_OK) {
    return status;
  }
  launch_run run = {
      .device = device, .words = words, .n_groups = (uint32_t)n_groups, .error = error};
  memcpy(run.bytes, memory->bytes, sizeof run.bytes);
  run.bytes[SPLITKV_ASCEND_WORDS] = (uint64_t)n_words * sizeof words[0];
  for (int b = SPLITKV_ASCEND_Q; b <= SPLITKV_ASCEND_MASK; b++) {
    run.host[b] = memory->data[b];
  }
  run.host[SPLITKV_ASCEND_WORDS] = words;

  const uint64_t out_bytes = run.bytes[SPLITKV_ASCEND_OUT];
  float *results = take_results(n_launches, out_bytes);
  if (results == NULL) {
    return spl_fail(error, SPLITKV_ERROR_OUT_OF_MEMORY, "n_launches", n_launches,
                    "no memory for %lld times and %llu bytes of out", (long long)n_launches,
                    (unsigned long long)out_bytes);
  }
  status = run_launches(&run, n_launches, results, results + n_launches);
  status = give_back(&run, status);
  if (status == SPLITKV_OK) {
    if (out_bytes > 0) {
      memcpy(memory->data[SPLITKV_ASCEND_OUT], results + n_launches, (size_t)out_bytes);
    }
    if (milliseconds != NULL) {
      memcpy(milliseconds, results, (size_t)n_launches * sizeof(float));
    }
  }
  free(results);
  return status;
}
