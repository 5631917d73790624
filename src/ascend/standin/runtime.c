/* libascendcl.so for a machine without an NPU.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Device memory is host memory with a registry of what was allocated where, so that the kernel's
 * stand-in can tell how large each of its buffers is. Streams do their work at once; what failed in
 * it is told, as by a device, when the stream is waited for. It is stricter than a device: an
 * address of another device, a copy beyond an allocation, an event that was not waited for, no
 * context in the thread are errors here. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */

#include "standin.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The functions that can be made to fail. */
#define FUNCTIONS(X)                                                                               \
  X(aclInit)                                                                                       \
  X(aclrtSetDevice)                                                                                \
  X(aclrtResetDevice)                                                                              \
  X(aclrtGetCurrentContext)                                                                        \
  X(aclrtSetCurrentContext)                                                                        \
  X(aclrtCreateStream)                                                                             \
  X(aclrtDestroyStream)                                                                            \
  X(aclrtSynchronizeStream)                                                                        \
  X(aclrtMalloc)                                                                                   \
  X(aclrtFree)                                                                                     \
  X(aclrtMemcpy)                                                                                   \
  X(aclrtMemset)                                                                                   \
  X(aclrtCreateEvent)                                                                              \
  X(aclrtDestroyEvent)                                                                             \
  X(aclrtRecordEvent)                                                                              \
  X(aclrtEventElapsedTime)

typedef enum call {
#define ENUMERATOR(name) F_##name,
  FUNCTIONS(ENUMERATOR)
#undef ENUMERATOR
      N_FUNCTIONS
} call;

static const char *const names[N_FUNCTIONS] = {
#define NAME(name) #name,
    FUNCTIONS(NAME)
#undef NAME
};

typedef enum kind { MEMORY, STREAM, EVENT } kind;

/* Something that was taken on a device. Handles of streams and events are addresses of these. */
typedef struct object {
  struct object *next;
  kind kind;
  int device;
  char *address; /* of memory */
  size_t bytes;
  int code; /* of a stream: what its synchronisation returns */
  char message[256];
  const struct object *stream; /* of an event: where it was recorded, NULL: not yet */
  bool is_done;                /* and whether that stream was waited for since */
  int64_t time_ns;
} object;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static object *objects;
static int64_t n_users[STANDIN_N_DEVICES]; /* the address of one is the context of its device */
static bool is_initialized;
static int64_t n_calls[N_FUNCTIONS];
static int64_t n_calls_of_all;
static int fail_function = -1; /* -1: any */
static int64_t fail_at;        /* 0: never */

static _Thread_local int64_t *context;
static _Thread_local char recent[320]; /* the last failure, "" when it was told */
static _Thread_local char told[320];

/* ── every call begins and ends here ────────────────────────────────────────────────────────── */

static int function_of(const char *name) {
  for (int f = 0; f < N_FUNCTIONS; f++) {
    if (strcmp(names[f], name) == 0) {
      return f;
    }
  }
  return -1;
}

/* With the mutex. */
static void set_failure(const char *function, int64_t k) {
  fail_function = function != NULL ? function_of(function) : -1;
  fail_at = function != NULL && fail_function < 0 ? 0 : k;
  memset(n_calls, 0, sizeof n_calls);
  n_calls_of_all = 0;
}

/* With the mutex. */
static void read_environment(void) {
  static bool is_read;
  if (is_read) {
    return;
  }
  is_read = true;
  const char *text = getenv("SPLITKV_STANDIN_FAIL");
  const char *colon = text != NULL ? strchr(text, ':') : NULL;
  char name[64];
  if (colon == NULL || (size_t)(colon - text) >= sizeof name) {
    return;
  }
  memcpy(name, text, (size_t)(colon - text));
  name[colon - text] = '\0';
  set_failure(name, strtoll(colon + 1, NULL, 10));
}

/* Takes the mutex, which end() gives back. Returns the code that the call is made to fail with, or
 * that of an order of calls that the runtime would refuse. */
static int begin(call f) {
  pthread_mutex_lock(&mutex);
  read_environment();
  n_calls[f]++;
  n_calls_of_all++;
  const int64_t k = fail_function < 0 ? n_calls_of_all : n_calls[f];
  if (fail_at > 0 && k == fail_at && (fail_function < 0 || fail_function == (int)f)) {
    (void)snprintf(recent, sizeof recent,
                   "\n%s was made to fail.\n        Solution: this is a stand-in.", names[f]);
    return f == F_aclrtMalloc ? ACL_ERROR_RT_MEMORY_ALLOCATION : ACL_ERROR_INTERNAL_ERROR;
  }
  if (f == F_aclInit) {
    return ACL_SUCCESS;
  }
  if (!is_initialized) {
    return ACL_ERROR_UNINITIALIZE;
  }
  const bool needs_context =
      f != F_aclrtSetDevice && f != F_aclrtResetDevice && f != F_aclrtSetCurrentContext;
  return needs_context && (context == NULL || *context == 0) ? ACL_ERROR_RT_CONTEXT_NULL
                                                             : ACL_SUCCESS;
}

static int end(call f, int code) {
  if (code != ACL_SUCCESS && code != ACL_ERROR_REPEAT_INITIALIZE && recent[0] == '\0') {
    (void)snprintf(recent, sizeof recent, "%s: the stand-in refuses this call.", names[f]);
  }
  pthread_mutex_unlock(&mutex);
  return code;
}

const char *aclGetRecentErrMsg(void) {
  if (recent[0] == '\0') {
    return NULL;
  }
  memcpy(told, recent, sizeof told);
  recent[0] = '\0';
  return told;
}

/* ── the registry, all with the mutex ───────────────────────────────────────────────────────── */

static int current_device(void) {
  return (int)(context - n_users);
}

static object *take(kind what) {
  object *taken = calloc(1, sizeof *taken);
  if (taken != NULL) {
    taken->kind = what;
    taken->device = current_device();
    taken->next = objects;
    objects = taken;
  }
  return taken;
}

/* The stream or event with this handle; NULL where there is none. */
static object *find(kind what, const void *handle) {
  object *found = objects;
  while (found != NULL && (found->kind != what || found != handle)) {
    found = found->next;
  }
  return found;
}

/* The allocation that the address lies in. */
static object *find_memory(const void *address, int device) {
  const uintptr_t at = (uintptr_t)address;
  for (object *o = objects; o != NULL; o = o->next) {
    const uintptr_t start = (uintptr_t)o->address;
    if (o->kind == MEMORY && o->device == device && at >= start && at - start < o->bytes) {
      return o;
    }
  }
  return NULL;
}

static size_t bytes_at(const void *address, int device) {
  const object *memory = find_memory(address, device);
  return memory != NULL ? memory->bytes - ((uintptr_t)address - (uintptr_t)memory->address) : 0;
}

static void give_back(object *taken) {
  object **link = &objects;
  while (*link != taken) {
    link = &(*link)->next;
  }
  *link = taken->next;
  free(taken->address);
  free(taken);
}

/* ── devices ────────────────────────────────────────────────────────────────────────────────── */

int aclInit(const char *config_path) {
  (void)config_path;
  int code = begin(F_aclInit);
  if (code == ACL_SUCCESS) {
    code = is_initialized ? ACL_ERROR_REPEAT_INITIALIZE : ACL_SUCCESS;
    is_initialized = true;
  }
  return end(F_aclInit, code);
}

int aclrtSetDevice(int32_t device_id) {
  int code = begin(F_aclrtSetDevice);
  if (code == ACL_SUCCESS && (device_id < 0 || device_id >= STANDIN_N_DEVICES)) {
    code = ACL_ERROR_RT_INVALID_DEVICEID;
  }
  if (code == ACL_SUCCESS) {
    context = &n_users[device_id];
    (*context)++;
  }
  return end(F_aclrtSetDevice, code);
}

int aclrtResetDevice(int32_t device_id) {
  int code = begin(F_aclrtResetDevice);
  if (device_id < 0 || device_id >= STANDIN_N_DEVICES || n_users[device_id] == 0) {
    code = ACL_ERROR_RT_INVALID_DEVICEID;
  } else {
    n_users[device_id]--;
  }
  return end(F_aclrtResetDevice, code);
}

int aclrtGetCurrentContext(void **current) {
  int code = begin(F_aclrtGetCurrentContext);
  if (code == ACL_SUCCESS) {
    *current = context;
  }
  return end(F_aclrtGetCurrentContext, code);
}

int aclrtSetCurrentContext(void *wanted) {
  int code = begin(F_aclrtSetCurrentContext);
  for (int d = 0; d < STANDIN_N_DEVICES && code == ACL_SUCCESS; d++) {
    if (&n_users[d] == wanted && n_users[d] > 0) {
      context = &n_users[d];
      return end(F_aclrtSetCurrentContext, ACL_SUCCESS);
    }
  }
  return end(F_aclrtSetCurrentContext, code != ACL_SUCCESS ? code : ACL_ERROR_RT_PARAM_INVALID);
}

/* ── memory ─────────────────────────────────────────────────────────────────────────────────── */

int aclrtMalloc(void **address, size_t size, int policy) {
  (void)policy;
  int code = begin(F_aclrtMalloc);
  if (code == ACL_SUCCESS && size == 0) {
    code = ACL_ERROR_RT_PARAM_INVALID;
  }
  if (code == ACL_SUCCESS) {
    char *bytes = malloc(size);
    object *memory = bytes != NULL ? take(MEMORY) : NULL;
    if (memory == NULL) {
      free(bytes);
      return end(F_aclrtMalloc, ACL_ERROR_RT_MEMORY_ALLOCATION);
    }
    memset(bytes, 0xff, size); /* NaNs, in every format of the kernel */
    memory->address = bytes;
    memory->bytes = size;
    *address = bytes;
  }
  return end(F_aclrtMalloc, code);
}

int aclrtFree(void *address) {
  int code = begin(F_aclrtFree);
  object *memory = context != NULL ? find_memory(address, current_device()) : NULL;
  if (memory != NULL && memory->address == address) {
    give_back(memory);
  } else {
    code = ACL_ERROR_RT_PARAM_INVALID;
  }
  return end(F_aclrtFree, code);
}

int aclrtMemcpy(void *dst, size_t dst_size, const void *src, size_t size, int kind_of_copy) {
  int code = begin(F_aclrtMemcpy);
  if (code == ACL_SUCCESS) {
    const int device = current_device();
    const bool fits = size <= dst_size;
    if (fits && kind_of_copy == ACL_MEMCPY_HOST_TO_DEVICE && dst_size <= bytes_at(dst, device)) {
      memcpy(dst, src, size);
    } else if (fits && kind_of_copy == ACL_MEMCPY_DEVICE_TO_HOST && size <= bytes_at(src, device)) {
      memcpy(dst, src, size);
    } else {
      code = ACL_ERROR_RT_PARAM_INVALID;
    }
  }
  return end(F_aclrtMemcpy, code);
}

int aclrtMemset(void *dst, size_t dst_size, int32_t value, size_t size) {
  int code = begin(F_aclrtMemset);
  if (code == ACL_SUCCESS) {
    if (size <= dst_size && dst_size <= bytes_at(dst, current_device())) {
      memset(dst, value, size);
    } else {
      code = ACL_ERROR_RT_PARAM_INVALID;
    }
  }
  return end(F_aclrtMemset, code);
}

/* ── streams and events ─────────────────────────────────────────────────────────────────────── */

static int create(call f, kind what, void **handle) {
  int code = begin(f);
  if (code == ACL_SUCCESS) {
    object *taken = take(what);
    if (taken == NULL) {
      code = ACL_ERROR_INTERNAL_ERROR;
    } else {
      *handle = taken;
    }
  }
  return end(f, code);
}

static int destroy(call f, kind what, void *handle) {
  int code = begin(f);
  object *taken = find(what, handle);
  if (taken == NULL) {
    code = ACL_ERROR_RT_PARAM_INVALID;
  } else {
    give_back(taken);
  }
  return end(f, code);
}

int aclrtCreateStream(void **stream) {
  return create(F_aclrtCreateStream, STREAM, stream);
}

int aclrtDestroyStream(void *stream) {
  return destroy(F_aclrtDestroyStream, STREAM, stream);
}

int aclrtCreateEvent(void **event) {
  return create(F_aclrtCreateEvent, EVENT, event);
}

int aclrtDestroyEvent(void *event) {
  return destroy(F_aclrtDestroyEvent, EVENT, event);
}

/* With the mutex: a stream of the current device, or why not. */
static int find_stream(void *handle, object **stream) {
  *stream = find(STREAM, handle);
  if (*stream == NULL) {
    return ACL_ERROR_RT_PARAM_INVALID;
  }
  return (*stream)->device == current_device() ? ACL_SUCCESS : ACL_ERROR_RT_STREAM_CONTEXT;
}

int aclrtSynchronizeStream(void *handle) {
  int code = begin(F_aclrtSynchronizeStream);
  object *stream = NULL;
  if (code == ACL_SUCCESS) {
    code = find_stream(handle, &stream);
  }
  if (code == ACL_SUCCESS) {
    for (object *o = objects; o != NULL; o = o->next) {
      o->is_done = o->is_done || (o->kind == EVENT && o->stream == stream);
    }
    code = stream->code;
    if (code != ACL_SUCCESS) {
      memcpy(recent, stream->message, sizeof stream->message);
    }
  }
  return end(F_aclrtSynchronizeStream, code);
}

int aclrtRecordEvent(void *handle, void *stream_handle) {
  int code = begin(F_aclrtRecordEvent);
  object *stream = NULL;
  object *event = find(EVENT, handle);
  if (code == ACL_SUCCESS) {
    code = event != NULL ? find_stream(stream_handle, &stream) : ACL_ERROR_RT_PARAM_INVALID;
  }
  if (code == ACL_SUCCESS) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->time_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
    event->stream = stream;
    event->is_done = false;
  }
  return end(F_aclrtRecordEvent, code);
}

int aclrtEventElapsedTime(float *milliseconds, void *start_handle, void *end_handle) {
  int code = begin(F_aclrtEventElapsedTime);
  const object *first = find(EVENT, start_handle);
  const object *last = find(EVENT, end_handle);
  if (code == ACL_SUCCESS) {
    if (first != NULL && last != NULL && first->is_done && last->is_done) {
      *milliseconds = (float)((double)(last->time_ns - first->time_ns) * 1e-6);
    } else {
      code = ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID;
    }
  }
  return end(F_aclrtEventElapsedTime, code);
}

/* ── for the kernel and for tests ───────────────────────────────────────────────────────────── */

uint64_t standin_bytes_at(const void *address, void *stream) {
  pthread_mutex_lock(&mutex);
  const object *found = find(STREAM, stream);
  const uint64_t bytes = found != NULL ? bytes_at(address, found->device) : 0;
  pthread_mutex_unlock(&mutex);
  return bytes;
}

void standin_fail_stream(void *stream, int code, const char *message) {
  pthread_mutex_lock(&mutex);
  object *found = find(STREAM, stream);
  if (found != NULL && found->code == ACL_SUCCESS) {
    found->code = code;
    (void)snprintf(found->message, sizeof found->message, "%s", message);
  }
  pthread_mutex_unlock(&mutex);
}

void standin_fail_call(const char *function, int64_t k) {
  pthread_mutex_lock(&mutex);
  set_failure(function, k);
  pthread_mutex_unlock(&mutex);
}

int64_t standin_n_calls(const char *function) {
  pthread_mutex_lock(&mutex);
  const int f = function != NULL ? function_of(function) : -1;
  const int64_t n = function == NULL ? n_calls_of_all : f >= 0 ? n_calls[f] : 0;
  pthread_mutex_unlock(&mutex);
  return n;
}

int64_t standin_n_taken(void) {
  pthread_mutex_lock(&mutex);
  int64_t n = 0;
  for (const object *o = objects; o != NULL; o = o->next) {
    n++;
  }
  for (int d = 0; d < STANDIN_N_DEVICES; d++) {
    n += n_users[d];
  }
  pthread_mutex_unlock(&mutex);
  return n;
}
