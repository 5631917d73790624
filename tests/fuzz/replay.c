/* Runs a fuzz target without a fuzzer: over its corpus, and over deterministic mutations of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *   replay [-n MUTATIONS] FILE_OR_FOLDER...
 *
 * Each input lies in an allocation of exactly its size, so that a sanitizer sees one byte too many.
 * Every run does the same; on a crash the input's name and the mutation's number are printed, and
 * the mutated input is written to the file crash-input. */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct input {
  char *name;
  uint8_t *data;
  size_t size;
} input;

typedef struct corpus {
  input *inputs;
  size_t n, capacity;
} corpus;

static void die(const char *what, const char *name) {
  fprintf(stderr, "replay: %s: %s\n", name, what);
  exit(2);
}

static void *must(void *memory) {
  if (memory == NULL) die("out of memory", "replay");
  return memory;
}

/* ── the corpus ─────────────────────────────────────────────────────────────────────────────── */

static void add_file(corpus *all, const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) die(strerror(errno), path);
  uint8_t *data = NULL;
  size_t size = 0, capacity = 0, n = 0;
  do {
    if (size == capacity) data = must(realloc(data, capacity = capacity * 2 + 4096));
    n = fread(data + size, 1, capacity - size, file);
    size += n;
  } while (n > 0);
  if (ferror(file)) die("cannot be read", path);
  fclose(file);
  if (all->n == all->capacity) {
    all->capacity = all->capacity * 2 + 64;
    all->inputs = must(realloc(all->inputs, all->capacity * sizeof *all->inputs));
  }
  char *name = must(malloc(strlen(path) + 1));
  strcpy(name, path);
  all->inputs[all->n++] = (input){name, data, size};
}

static void add_path(corpus *all, const char *path) {
  struct stat status;
  if (stat(path, &status) != 0) die(strerror(errno), path);
  if (!S_ISDIR(status.st_mode)) {
    add_file(all, path);
    return;
  }
  DIR *folder = opendir(path);
  if (folder == NULL) die(strerror(errno), path);
  const struct dirent *entry;
  while ((entry = readdir(folder)) != NULL) {
    if (entry->d_name[0] == '.') continue;
    const size_t size = strlen(path) + strlen(entry->d_name) + 2;
    char *inner = must(malloc(size));
    snprintf(inner, size, "%s/%s", path, entry->d_name);
    add_path(all, inner);
    free(inner);
  }
  closedir(folder);
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const input *)a)->name, ((const input *)b)->name);
}

/* ── mutations ──────────────────────────────────────────────────────────────────────────────── */

static uint64_t random_state;

/* splitmix64 */
static uint64_t random_below(uint64_t n) {
  uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return n == 0 ? 0 : (z ^ z >> 31) % n;
}

/* Replaces data[at .. at + n_old) by n_new bytes. */
static void splice(input *in, size_t at, size_t n_old, const uint8_t *bytes, size_t n_new) {
  const size_t size = in->size - n_old + n_new;
  uint8_t *data = must(malloc(size + 1));
  memcpy(data, in->data, at);
  if (n_new > 0) memcpy(data + at, bytes, n_new);
  memcpy(data + at + n_new, in->data + at + n_old, in->size - at - n_old);
  free(in->data);
  in->data = data;
  in->size = size;
}

static void put_integer(input *in) {
  static const uint64_t values[] = {0,          1,
                                    0x7f,       0x80,
                                    0xff,       0x100,
                                    0x7fff,     0xffff,
                                    0x7fffffff, 0x80000000,
                                    0xffffffff, UINT64_C(0x7fffffffffffffff),
                                    UINT64_MAX, UINT64_MAX - 7};
  const uint64_t value = values[random_below(sizeof values / sizeof values[0])];
  size_t width = (size_t)1 << random_below(4);
  const size_t at = (size_t)random_below(in->size);
  if (width > in->size - at) width = in->size - at;
  for (size_t i = 0; i < width; i++)
    in->data[at + i] = (uint8_t)(value >> (8 * i));
}

/* A number in text becomes another one. */
static void put_digits(input *in) {
  static const char *const numbers[] = {"0",   "-1",         "1",          "9223372036854775807",
                                        "1e9", "2147483648", "4294967296", "9007199254740993"};
  size_t at = (size_t)random_below(in->size);
  while (at < in->size && (in->data[at] < '0' || in->data[at] > '9'))
    at++;
  size_t end = at;
  while (end < in->size && in->data[end] >= '0' && in->data[end] <= '9')
    end++;
  const char *text = numbers[random_below(sizeof numbers / sizeof numbers[0])];
  splice(in, at, end - at, (const uint8_t *)text, strlen(text));
}

/* A piece of this or another input goes in, in place of a piece of this one. */
static void put_piece(input *in, const input *from) {
  const size_t at = (size_t)random_below(in->size + 1);
  const size_t n_old = random_below(2) ? (size_t)random_below(in->size - at + 1) : 0;
  const size_t begin = (size_t)random_below(from->size + 1);
  const size_t n_new = (size_t)random_below(from->size - begin + 1);
  if (in->size + n_new > 65536) return;
  uint8_t *piece = must(malloc(n_new + 1));
  memcpy(piece, from->data + begin, n_new);
  splice(in, at, n_old, piece, n_new);
  free(piece);
}

static void mutate(input *in, const corpus *all) {
  const size_t at = (size_t)random_below(in->size);
  const uint8_t byte = (uint8_t)random_below(256);
  const uint64_t kind = in->size == 0 ? 5 : random_below(7);
  switch (kind) {
  case 0: /* a bit */
    in->data[at] = (uint8_t)(in->data[at] ^ 1u << random_below(8));
    break;
  case 1: /* a byte */
    in->data[at] = byte;
    break;
  case 2: /* cut short */
    splice(in, at, in->size - at, NULL, 0);
    break;
  case 3:
    put_integer(in);
    break;
  case 4:
    put_digits(in);
    break;
  case 5:
    put_piece(in, &all->inputs[random_below(all->n)]);
    break;
  default: /* a byte more */
    splice(in, at, 0, &byte, 1);
    break;
  }
}

/* ── running ────────────────────────────────────────────────────────────────────────────────── */

/* What is being run, for the signal handler. */
static char now_text[512];
static const uint8_t *now_data;
static size_t now_size;

/* Only calls that a signal handler may make. */
static void on_crash(int number) {
  static const char file_name[] = "crash-input";
  (void)!write(STDERR_FILENO, now_text, strlen(now_text));
  const int file = open(file_name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file >= 0) {
    (void)!write(file, now_data, now_size);
    close(file);
  }
  signal(number, SIG_DFL);
  raise(number);
}

static void run_one(const char *name, long mutation, const uint8_t *data, size_t size) {
  uint8_t *exact = malloc(size); /* of size 0, too: an address whose first byte may not be read */
  if (exact == NULL) exact = must(malloc(1));
  if (size > 0) memcpy(exact, data, size);
  snprintf(now_text, sizeof now_text, "replay: crash on %.400s, mutation %ld\n", name, mutation);
  now_data = exact;
  now_size = size;
  if (LLVMFuzzerTestOneInput(exact, size) != 0) die("the target refused an input", name);
  free(exact);
}

static void run_mutations(const corpus *all, const input *base, long n_mutations) {
  for (long m = 1; m <= n_mutations; m++) {
    input changed = {base->name, must(malloc(base->size + 1)), base->size};
    if (base->size > 0) memcpy(changed.data, base->data, base->size);
    const uint64_t n_changes = 1 + random_below(4);
    for (uint64_t i = 0; i < n_changes; i++)
      mutate(&changed, all);
    run_one(base->name, m, changed.data, changed.size);
    free(changed.data);
  }
}

int main(int argc, char **argv) {
  static const int crashes[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  long n_mutations = 500;
  corpus all = {0};
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) {
      n_mutations = strtol(argv[++i], NULL, 10);
    } else {
      add_path(&all, argv[i]);
    }
  }
  /* An empty corpus checks nothing and must not pass. */
  if (all.n == 0) die("no input", argc > 1 ? argv[argc - 1] : "usage: replay [-n N] FOLDER");
  qsort(all.inputs, all.n, sizeof *all.inputs, by_name);
  for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
    signal(crashes[i], on_crash);
  for (size_t i = 0; i < all.n; i++) {
    random_state = i; /* a failure is found again without the inputs before it */
    run_one(all.inputs[i].name, 0, all.inputs[i].data, all.inputs[i].size);
    run_mutations(&all, &all.inputs[i], n_mutations);
  }
  printf("%zu inputs, %ld mutations of each\n", all.n, n_mutations);
  for (size_t i = 0; i < all.n; i++) {
    free(all.inputs[i].name);
    free(all.inputs[i].data);
  }
  free(all.inputs);
  return 0;
}
