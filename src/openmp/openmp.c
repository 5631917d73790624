/* A pool over OpenMP's own threads. Outside the core: it uses the public headers only.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <splitkv/openmp.h>

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>

/* The pool holds no resource, so the number of threads travels in the context pointer itself; it
 * is at most SPLITKV_MAX_WORKERS, which every uintptr_t can hold. */
static void *context_of(int n_threads) {
  return (void *)(uintptr_t)n_threads; /* NOLINT(performance-no-int-to-ptr): never dereferenced */
}

static void parallel_for(void *context, int64_t n, void (*body)(void *body_context, int64_t i),
                         void *body_context) {
  int n_threads = (int)(uintptr_t)context;
#pragma omp parallel for schedule(dynamic, 1) num_threads(n <n_threads && n> 0 ? (int)n : n_threads)
  for (int64_t i = 0; i < n; i++) {
    body(body_context, i);
  }
}

static splitkv_status fail(splitkv_error *error, splitkv_status status, const char *field,
                           int64_t value, const char *message) {
  if (error != NULL) {
    *error = (splitkv_error){.status = status, .value = value};
    snprintf(error->field, sizeof error->field, "%s", field);
    snprintf(error->message, sizeof error->message, "%s", message);
  }
  return status;
}

splitkv_status splitkv_openmp_pool(int64_t n_threads, splitkv_pool *pool, splitkv_error *error) {
  if (pool == NULL) {
    return fail(error, SPLITKV_ERROR_NULL_POINTER, "pool", 0, "pool is null");
  }
  if (n_threads < 0 || n_threads > SPLITKV_MAX_WORKERS) {
    char message[sizeof error->message];
    snprintf(message, sizeof message,
             "n_threads is %" PRId64 ", must be 1 to %d, or 0 for OpenMP's own choice", n_threads,
             SPLITKV_MAX_WORKERS);
    return fail(error, SPLITKV_ERROR_N_WORKERS, "n_threads", n_threads, message);
  }
  int n_chosen = n_threads > 0 ? (int)n_threads : omp_get_max_threads();
  if (n_chosen > SPLITKV_MAX_WORKERS) {
    n_chosen = SPLITKV_MAX_WORKERS;
  }
  *pool = (splitkv_pool){
      .struct_size = sizeof *pool,
      .parallel_for = parallel_for,
      .context = context_of(n_chosen),
  };
  return SPLITKV_OK;
}
