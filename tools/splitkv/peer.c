/* SPDX-License-Identifier: Apache-2.0 */
#if defined(__linux__)
#define _GNU_SOURCE /* memfd_create */
#endif

#include "peer.h"

#include "machine.h"
#include "tool.h"

#include "ref.h"

#include <cjson/cJSON.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { DATA_FD = 3, FIRST_OWN_FD = 4, SECTION_ALIGNMENT = 4096, POLL_MILLISECONDS = 100 };
#define CALM_STEP_NANOSECONDS 200000
#define CALM_SECONDS 0.5

/* ── data ───────────────────────────────────────────────────────────────────────────────────── */

/* Moves a descriptor above those that a peer begins with, and out of what it inherits. Returns -1,
 * with nothing left open, where there was none or none is free. */
static int move_descriptor(int fd) {
  int moved = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FIRST_OWN_FD);
  if (fd >= 0) {
    close(fd);
  }
  return moved;
}

/* A file that has lost its name, in memory where there is room. -1 where there is none. */
static int open_unnamed(size_t size_bytes) {
  const char *const folders[] = {"/dev/shm", getenv("TMPDIR"), "/tmp"};
  for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
    char path[512];
    if (!folders[i] ||
        snprintf(path, sizeof path, "%s/splitkv-XXXXXX", folders[i]) >= (int)sizeof path) {
      continue;
    }
    int fd = mkstemp(path);
    if (fd < 0) {
      continue;
    }
    unlink(path);
    if (size_bytes == 0 || posix_fallocate(fd, 0, (off_t)size_bytes) == 0) {
      return move_descriptor(fd);
    }
    close(fd);
  }
  return -1;
}

/* A file in memory whose size nobody can change: one that a peer cuts short would be the death of
 * all that have it mapped. -1 where there is no such thing. */
static int open_sealed(size_t size_bytes) {
#if defined(F_ADD_SEALS) && defined(MFD_ALLOW_SEALING)
  int fd = move_descriptor(memfd_create("splitkv", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd >= 0 && posix_fallocate(fd, 0, (off_t)size_bytes) == 0 &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
    return fd;
  }
  if (fd >= 0) {
    close(fd);
  }
#else
  (void)size_bytes;
#endif
  return -1;
}

/* Where things lie in the file. */
typedef struct sections {
  size_t q, k, v, kv_lens, q_offsets, table_offsets, table, out, end;
} sections;

static size_t place(size_t *end, size_t size_bytes) {
  size_t offset = *end;
  *end += (size_bytes + SECTION_ALIGNMENT - 1) / SECTION_ALIGNMENT * SECTION_ALIGNMENT;
  return offset;
}

static size_t count_out(const tool_case *c) {
  return (size_t)(c->n_rows * c->problem.n_heads_q * c->problem.head_dim_v);
}

static sections place_sections(const tool_case *c) {
  sections s = {0};
  size_t n_requests = (size_t)c->batch.n_requests;
  s.q = place(&s.end, c->q.size_bytes);
  s.k = place(&s.end, c->kv[KV_K].size_bytes);
  s.v = place(&s.end, c->kv[KV_V].size_bytes);
  s.kv_lens = place(&s.end, n_requests * sizeof(int64_t));
  s.q_offsets = place(&s.end, (n_requests + 1) * sizeof(int64_t));
  s.table_offsets = place(&s.end, (n_requests + 1) * sizeof(int64_t));
  s.table = place(&s.end, (size_t)c->n_table_entries * sizeof(int64_t));
  s.out = place(&s.end, count_out(c) * sizeof(float));
  return s;
}

static int64_t load_index(const tool_case *c, const void *array, int64_t i) {
  return c->problem.table_type == SPLITKV_I64 ? ((const int64_t *)array)[i]
                                              : ((const int32_t *)array)[i];
}

/* Peers see one form of table: the pages of all requests in a row, without what is not used. */
static void write_table(const tool_case *c, int64_t *offsets, int64_t *table) {
  int64_t page = c->problem.page_size_tokens, n = 0;
  for (int64_t r = 0; r < c->batch.n_requests; r++) {
    int64_t first =
        c->table_offsets ? load_index(c, c->table_offsets, r) : r * c->problem.table_width;
    int64_t n_pages = c->kv_lens[r] / page + (c->kv_lens[r] % page > 0);
    offsets[r] = n;
    for (int64_t i = 0; i < n_pages; i++) {
      table[n++] = load_index(c, c->block_table, first + i);
    }
  }
  offsets[c->batch.n_requests] = n;
}

int peer_data_create(peer_data *data, const tool_case *c, const char *name) {
  sections s = place_sections(c);
  *data = (peer_data){.out_offset = s.out, .n_out = count_out(c)};
  data->fd = open_sealed(s.end);
  data->fd = data->fd < 0 ? open_unnamed(s.end) : data->fd;
  void *memory = data->fd < 0 || s.end == 0
                     ? MAP_FAILED
                     : mmap(NULL, s.end, PROT_READ | PROT_WRITE, MAP_SHARED, data->fd, 0);
  if (memory == MAP_FAILED) {
    return tool_unsupported("%s: no room for %.1f GB of tensors for the peers", name,
                            (double)s.end / 1e9);
  }
  unsigned char *bytes = memory;
  memcpy(bytes + s.q, c->q.data, c->q.size_bytes);
  memcpy(bytes + s.k, c->kv[KV_K].data, c->kv[KV_K].size_bytes);
  memcpy(bytes + s.v, c->kv[KV_V].data, c->kv[KV_V].size_bytes);
  size_t n_requests = (size_t)c->batch.n_requests;
  memcpy(bytes + s.kv_lens, c->kv_lens, n_requests * sizeof(int64_t));
  memcpy(bytes + s.q_offsets, c->q_offsets, (n_requests + 1) * sizeof(int64_t));
  write_table(c, (int64_t *)(void *)(bytes + s.table_offsets),
              (int64_t *)(void *)(bytes + s.table));
  munmap(memory, s.end);
  return TOOL_OK;
}

void peer_data_free(peer_data *data) {
  if (data->fd >= 0) {
    close(data->fd);
  }
  *data = (peer_data){.fd = -1};
}

/* One line of JSON with its newline, to be freed; NULL when memory is short. */
static char *describe_case(const peer_choice *choice, const tool_case *c, int is_warm) {
  const splitkv_problem *p = &c->problem;
  sections s = place_sections(c);
  double cold_bytes = is_warm ? 0 : (double)machine_cold_bytes();
  const struct {
    const char *key;
    double value;
  } numbers[] = {{"protocol", 2},
                 {"requests", (double)c->batch.n_requests},
                 {"rows", (double)c->n_rows},
                 {"heads_q", (double)p->n_heads_q},
                 {"heads_kv", (double)p->n_heads_kv},
                 {"head_dim", (double)p->head_dim},
                 {"head_dim_v", (double)p->head_dim_v},
                 {"page_tokens", (double)p->page_size_tokens},
                 {"pages", (double)p->n_pages},
                 {"table_pages", (double)c->n_table_entries},
                 {"threads", (double)c->spec->threads},
                 {"scale", p->scale != 0 ? (double)p->scale : 1 / sqrt((double)p->head_dim)},
                 {"cold_bytes", cold_bytes},
                 {"fd", DATA_FD},
                 {"file_bytes", (double)s.end},
                 {"q_offset", (double)s.q},
                 {"k_offset", (double)s.k},
                 {"v_offset", (double)s.v},
                 {"kv_lens_offset", (double)s.kv_lens},
                 {"q_offsets_offset", (double)s.q_offsets},
                 {"table_offsets_offset", (double)s.table_offsets},
                 {"table_offset", (double)s.table},
                 {"out_offset", (double)s.out}};
  cJSON *json = cJSON_CreateObject();
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    cJSON_AddNumberToObject(json, numbers[i].key, numbers[i].value);
  }
  /* Of one query row it is no rule. */
  cJSON_AddBoolToObject(json, "causal", c->max_q_rows > 1 && (p->flags & SPLITKV_FLAG_CAUSAL) != 0);
  cJSON_AddStringToObject(json, "layout", p->layout == SPLITKV_LAYOUT_HND ? "hnd" : "nhd");
  cJSON_AddStringToObject(json, "dtype_q", problem_dtype_name(p->dtype_q));
  cJSON_AddStringToObject(json, "dtype_kv", problem_dtype_name(p->dtype_kv));
  cJSON_AddStringToObject(json, "dtype_out", problem_dtype_name(p->dtype_out));
  cJSON_AddStringToObject(json, "wanted_kv",
                          choice->kv_dtype ? choice->kv_dtype : problem_dtype_name(p->dtype_kv));
  char *text = cJSON_PrintUnformatted(json);
  size_t length = text ? strlen(text) : 0;
  char *line = text ? malloc(length + 2) : NULL;
  if (line) {
    memcpy(line, text, length);
    memcpy(line + length, "\n", 2);
  }
  cJSON_free(text);
  cJSON_Delete(json);
  return line;
}

/* ── where the programs are ─────────────────────────────────────────────────────────────────── */

static int is_program(const char *path) {
  struct stat status;
  return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

/* "bench/peers" of the source tree: the one named by the environment, the one in the working
 * directory, or the one beside the build directory that this tool lies in. */
static int find_folder(char *folder, size_t capacity) {
  const char *named = getenv("SPLITKV_PEERS");
  if (named && *named) {
    return snprintf(folder, capacity, "%s", named) < (int)capacity;
  }
  snprintf(folder, capacity, "bench/peers");
  if (access(folder, X_OK) == 0) {
    return 1;
  }
  char own[400];
  ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
  if (length <= 0) {
    return 0;
  }
  own[length] = '\0';
  char *slash = strrchr(own, '/');
  *(slash ? slash : own) = '\0';
  return snprintf(folder, capacity, "%s/../bench/peers", own) < (int)capacity &&
         access(folder, X_OK) == 0;
}

/* "NAME" or "NAME:DTYPE". */
static int split_choice(const char *text, peer_choice *choice) {
  static const char *const dtypes[] = {"f32", "f16", "bf16"};
  const char *colon = strrchr(text, ':');
  size_t length = colon ? (size_t)(colon - text) : strlen(text);
  if (length == 0 || length >= sizeof choice->name) {
    return tool_usage_error("--vs %.80s: must be the name of a peer in bench/peers", text);
  }
  *choice = (peer_choice){.text = text};
  memcpy(choice->name, text, length);
  if (strchr(choice->name, '/') || choice->name[0] == '.') {
    return tool_usage_error("--vs %.80s: must be the name of a peer in bench/peers", text);
  }
  for (size_t i = 0; colon && i < sizeof dtypes / sizeof dtypes[0]; i++) {
    choice->kv_dtype = strcmp(colon + 1, dtypes[i]) == 0 ? dtypes[i] : choice->kv_dtype;
  }
  return colon && !choice->kv_dtype
             ? tool_usage_error("--vs %.80s: after the colon must be f32, f16 or bf16", text)
             : TOOL_OK;
}

/* Whether a name in the folder is that of a peer: a program, but not the one that installs them. */
static int is_peer(const char *folder, const char *name, char *path, size_t capacity) {
  snprintf(path, capacity, "%.430s/%s", folder, name);
  return strcmp(name, "install") != 0 && is_program(path);
}

/* ", which has A, B, C", as many as there is room for; empty where there are none. */
static void list_peers(const char *folder, char *list, size_t capacity) {
  struct dirent **entries = NULL;
  const int n = scandir(folder, &entries, NULL, alphasort);
  size_t length = 0;
  list[0] = '\0';
  for (int i = 0; i < n; i++) {
    char path[700];
    const char *name = entries[i]->d_name;
    if (is_peer(folder, name, path, sizeof path) && length + strlen(name) + 16 < capacity) {
      length += (size_t)snprintf(list + length, capacity - length, "%s%s",
                                 length > 0 ? ", " : ", which has ", name);
    }
    free(entries[i]);
  }
  free(entries);
}

int peer_find(const char *text, peer_choice *choice) {
  char folder[440];
  int status = split_choice(text, choice);
  if (status) {
    return status;
  }
  if (!find_folder(folder, sizeof folder)) {
    return tool_usage_error("--vs %s: no folder bench/peers here, SPLITKV_PEERS may name it", text);
  }
  if (is_peer(folder, choice->name, choice->path, sizeof choice->path)) {
    return TOOL_OK;
  }
  char list[200];
  list_peers(folder, list, sizeof list);
  return tool_usage_error("--vs %s: no such peer in %.200s%s", text, folder, list);
}

/* ── talking ────────────────────────────────────────────────────────────────────────────────── */

/* The last line that the peer wrote to its standard error. */
static void last_words(const peer *p, char *text, size_t capacity) {
  char tail[512];
  text[0] = '\0';
  off_t end = p->errors < 0 ? 0 : lseek(p->errors, 0, SEEK_END);
  off_t first = end > (off_t)sizeof tail - 1 ? end - (off_t)sizeof tail + 1 : 0;
  ssize_t n = end > 0 ? pread(p->errors, tail, sizeof tail - 1, first) : 0;
  while (n > 0 && strchr(" \t\r\n", tail[n - 1])) {
    n--;
  }
  if (n > 0) {
    tail[n] = '\0';
    const char *line = strrchr(tail, '\n');
    snprintf(text, capacity, ": %.*s", (int)capacity - 3, line ? line + 1 : tail);
  }
}

/* The peer is of no use any more. */
static void give_up(peer *p, const char *what) {
  char words[160];
  last_words(p, words, sizeof words);
  snprintf(p->reason, sizeof p->reason, "%.76s%.160s", what, words);
  p->state = PEER_BROKEN;
  p->requests = p->requests >= 0 ? (close(p->requests), -1) : -1;
}

/* Gives up a peer whose process has ended. Returns whether that is so. */
static int give_up_ended(peer *p) {
  int status = 0;
  char what[80];
  if (p->pid <= 0 || waitpid(p->pid, &status, WNOHANG) != p->pid) {
    return 0;
  }
  p->pid = 0;
  if (WIFSIGNALED(status)) {
    snprintf(what, sizeof what, "it died of signal %d", WTERMSIG(status));
  } else {
    snprintf(what, sizeof what, "it ended with status %d", WEXITSTATUS(status));
  }
  give_up(p, what);
  return 1;
}

/* Its pipe is closed: it has ended, or will soon. */
static void give_up_closed(peer *p) {
  const struct timespec moment = {.tv_nsec = 1000000};
  for (int i = 0; i < 200; i++) {
    if (give_up_ended(p)) {
      return;
    }
    nanosleep(&moment, NULL);
  }
  give_up(p, "it stopped answering");
}

/* Moves the first whole line of the buffer to `line`, with '?' for bytes that would end it early.
 */
static int take_line(peer *p, char *line) {
  char *end = memchr(p->buffer, '\n', p->n_buffered);
  if (!end) {
    return 0;
  }
  size_t length = (size_t)(end - p->buffer);
  for (size_t i = 0; i < length; i++) {
    line[i] = p->buffer[i] ? p->buffer[i] : '?';
  }
  line[length] = '\0';
  p->n_buffered -= length + 1;
  memmove(p->buffer, end + 1, p->n_buffered);
  return 1;
}

/* Reads what is there, waiting for it a little. Returns 0, or -1 when the peer broke. */
static int fill_buffer(peer *p) {
  size_t room = sizeof p->buffer - p->n_buffered;
  if (room == 0) {
    give_up(p, "it answered with a line that does not end");
    return -1;
  }
  struct pollfd ready = {.fd = p->answers, .events = POLLIN};
  if (poll(&ready, 1, POLL_MILLISECONDS) <= 0) {
    /* What it started may hold the pipe open. */
    return give_up_ended(p) ? -1 : 0;
  }
  ssize_t got = read(p->answers, p->buffer + p->n_buffered, room);
  if (got == 0) {
    give_up_closed(p);
    return -1;
  }
  p->n_buffered += got > 0 ? (size_t)got : 0;
  return 0;
}

static int give_up_late(peer *p) {
  char what[80];
  snprintf(what, sizeof what, "no answer within %g seconds", p->timeout);
  give_up(p, what);
  return -1;
}

/* The pipe does not block: a peer that does not read has no more time than one that is silent. */
static int send_text(peer *p, const char *text, double end) {
  size_t length = strlen(text);
  while (length > 0) {
    ssize_t n = write(p->requests, text, length);
    if (n >= 0) {
      text += n;
      length -= (size_t)n;
    } else if (errno == EAGAIN) {
      struct pollfd ready = {.fd = p->requests, .events = POLLOUT};
      if (machine_seconds() > end) {
        return give_up_late(p);
      }
      if (poll(&ready, 1, POLL_MILLISECONDS) <= 0 && give_up_ended(p)) {
        return -1;
      }
    } else if (errno != EINTR) {
      give_up_closed(p);
      return -1;
    }
  }
  return 0;
}

/* `line` holds sizeof p->buffer bytes. */
static int receive_line(peer *p, char *line, double end) {
  while (!take_line(p, line)) {
    if (machine_seconds() > end) {
      return give_up_late(p);
    }
    if (fill_buffer(p)) {
      return -1;
    }
  }
  return 0;
}

static int give_up_nonsense(peer *p, const char *request, const char *answer) {
  char what[76];
  snprintf(what, sizeof what, "it answered '%.32s' to '%.*s'", answer, (int)strcspn(request, "\n"),
           request);
  give_up(p, what);
  return -1;
}

/* What comes before its request is an answer to nothing, and would pass for one to the next.
 * Returns 0, or -1 when the peer broke. */
static int expect_silence(peer *p) {
  struct pollfd ready = {.fd = p->answers, .events = POLLIN};
  if (p->n_buffered == 0) {
    int n_ready = poll(&ready, 1, 0);
    if (n_ready <= 0 || fill_buffer(p)) {
      return n_ready <= 0 ? 0 : -1;
    }
  }
  if (p->n_buffered > 0) {
    const char *end = memchr(p->buffer, '\n', p->n_buffered);
    size_t length = end ? (size_t)(end - p->buffer) : p->n_buffered;
    char what[76];
    snprintf(what, sizeof what, "it said '%.*s' without being asked",
             (int)(length < 32 ? length : 32), p->buffer);
    give_up(p, what);
    return -1;
  }
  return 0;
}

/* One request, which ends with a newline, and the line that answers it. `answer` holds sizeof
 * p->buffer bytes. */
static int exchange(peer *p, const char *request, char *answer) {
  if (expect_silence(p)) {
    return -1;
  }
  if (p->is_stopped) {
    kill(-p->group, SIGCONT);
    p->is_stopped = 0;
  }
  double end = machine_seconds() + p->timeout;
  return send_text(p, request, end) || receive_line(p, answer, end) ? -1 : 0;
}

static int ask(peer *p, const char *request, char *answer) {
  if (p->state != PEER_READY || exchange(p, request, answer)) {
    return -1;
  }
  if (strncmp(answer, "error ", 6) == 0) {
    snprintf(p->reason, sizeof p->reason, "%.200s", answer + 6);
    p->state = PEER_BROKEN;
    return -1;
  }
  return 0;
}

/* ── begin and end ──────────────────────────────────────────────────────────────────────────── */

static int make_pipe(int *from, int *to) {
  int ends[2];
  if (pipe(ends)) {
    return -1;
  }
  *from = move_descriptor(ends[0]);
  *to = move_descriptor(ends[1]);
  return *from < 0 || *to < 0 ? -1 : 0;
}

/* In a group of its own: what it starts ends with it, and the terminal's signals are ours. */
static int spawn(peer *p, int child_in, int child_out, int data_fd) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  if (posix_spawn_file_actions_init(&actions)) {
    return -1;
  }
  if (posix_spawnattr_init(&attributes)) {
    posix_spawn_file_actions_destroy(&actions);
    return -1;
  }
  int failed = posix_spawn_file_actions_adddup2(&actions, child_in, 0) ||
               posix_spawn_file_actions_adddup2(&actions, child_out, 1) ||
               posix_spawn_file_actions_adddup2(&actions, p->errors, 2) ||
               posix_spawn_file_actions_adddup2(&actions, data_fd, DATA_FD) ||
               posix_spawnattr_setsigdefault(&attributes, &defaults) ||
               posix_spawnattr_setpgroup(&attributes, 0) ||
               posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
  char *arguments[] = {(char *)p->choice->path, NULL};
  failed = failed ||
           posix_spawn(&p->pid, p->choice->path, &actions, &attributes, arguments, environ) != 0;
  p->pid = failed ? 0 : p->pid;
  p->group = p->pid;
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return failed ? -1 : 0;
}

static int start_process(peer *p, int data_fd) {
  int child_in = -1, child_out = -1;
  p->errors = open_unnamed(0);
  int failed = p->errors < 0 || make_pipe(&child_in, &p->requests) ||
               make_pipe(&p->answers, &child_out) || fcntl(p->requests, F_SETFL, O_NONBLOCK) ||
               spawn(p, child_in, child_out, data_fd);
  if (child_in >= 0) {
    close(child_in);
  }
  if (child_out >= 0) {
    close(child_out);
  }
  return failed ? -1 : 0;
}

static void copy_text(const cJSON *answer, const char *key, char *text, size_t capacity) {
  const char *value = cJSON_GetStringValue(cJSON_GetObjectItem(answer, key));
  snprintf(text, capacity, "%s", value ? value : "");
}

/* The answer to the case. Returns 0, or -1 where it is none. */
static int read_answer(peer *p, const cJSON *answer) {
  const cJSON *unsupported = cJSON_GetObjectItem(answer, "unsupported");
  const cJSON *missing = cJSON_GetObjectItem(answer, "missing");
  if (cJSON_IsString(unsupported)) {
    p->state = PEER_UNSUPPORTED;
    snprintf(p->reason, sizeof p->reason, "%.200s", unsupported->valuestring);
    return 0;
  }
  if (cJSON_IsString(missing)) {
    p->state = PEER_MISSING;
    snprintf(p->reason, sizeof p->reason, "%.200s", missing->valuestring);
    return 0;
  }
  const cJSON *copies = cJSON_GetObjectItem(answer, "copies");
  copy_text(answer, "version", p->version, sizeof p->version);
  copy_text(answer, "path", p->path, sizeof p->path);
  copy_text(answer, "layout", p->layout, sizeof p->layout);
  copy_text(answer, "kv_dtype", p->kv_dtype, sizeof p->kv_dtype);
  if (!cJSON_IsTrue(cJSON_GetObjectItem(answer, "ready")) || !cJSON_IsNumber(copies) ||
      !(copies->valuedouble >= 1 && copies->valuedouble <= 1e9) || !p->version[0] ||
      !p->kv_dtype[0]) {
    return -1;
  }
  p->n_copies = (int64_t)copies->valuedouble;
  p->state = PEER_READY;
  return 0;
}

static void ask_for_case(peer *p, const tool_case *c, int is_warm) {
  char answer[sizeof p->buffer];
  char *line = describe_case(p->choice, c, is_warm);
  if (!line) {
    give_up(p, "out of memory");
    return;
  }
  if (exchange(p, line, answer) == 0) {
    cJSON *json = cJSON_ParseWithOpts(answer, NULL, 1);
    if (!json || read_answer(p, json)) {
      give_up_nonsense(p, "the case", answer);
    }
    cJSON_Delete(json);
  }
  free(line);
}

void peer_begin(peer *p, const peer_choice *choice, const tool_case *c, const peer_data *data,
                const peer_settings *settings) {
  *p = (peer){
      .choice = choice, .timeout = settings->timeout, .requests = -1, .answers = -1, .errors = -1};
  /* A peer that dies is an answer, not a signal. */
  signal(SIGPIPE, SIG_IGN);
  p->out = malloc((data->n_out + 1) * sizeof *p->out);
  if (!p->out) {
    give_up(p, "out of memory");
  } else if (start_process(p, data->fd)) {
    give_up(p, "cannot be started");
  } else {
    ask_for_case(p, c, settings->is_warm);
  }
}

static void close_descriptor(int *fd) {
  if (*fd >= 0) {
    close(*fd);
  }
  *fd = -1;
}

/* The end of its input asks it to go; what has not gone after a moment has to. */
static void end_process(peer *p) {
  const struct timespec moment = {.tv_nsec = 2000000};
  close_descriptor(&p->requests);
  if (p->is_stopped) {
    kill(-p->group, SIGCONT);
  }
  for (int i = 0; i < 500 && p->state != PEER_BROKEN && p->pid > 0; i++) {
    p->pid = waitpid(p->pid, NULL, WNOHANG) == p->pid ? 0 : p->pid;
    nanosleep(&moment, NULL);
  }
  kill(-p->group, SIGKILL);
  if (p->pid > 0) {
    waitpid(p->pid, NULL, 0);
  }
}

void peer_end(peer *p) {
  if (p->group > 0) {
    end_process(p);
  }
  p->pid = p->group = 0;
  close_descriptor(&p->requests);
  close_descriptor(&p->answers);
  close_descriptor(&p->errors);
  free(p->out);
  p->out = NULL;
}

/* ── runs ───────────────────────────────────────────────────────────────────────────────────── */

static double cpu_seconds_of(pid_t pid) {
  clockid_t clock;
  struct timespec now = {0};
  if (pid <= 0 || clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &now)) {
    return 0;
  }
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int peer_run(peer *p, peer_time *time) {
  char request[32], answer[sizeof p->buffer];
  if (p->state != PEER_READY) {
    return -1;
  }
  snprintf(request, sizeof request, "run %lld\n", (long long)p->next_copy);
  p->next_copy = (p->next_copy + 1) % p->n_copies;
  double cpu_start = cpu_seconds_of(p->pid), start = machine_seconds();
  if (ask(p, request, answer)) {
    return -1;
  }
  time->answer = machine_seconds() - start;
  time->cpu_seconds = cpu_seconds_of(p->pid) - cpu_start;
  char *end = answer;
  /* strtod alone would take blanks, hexadecimal numbers and words, too. */
  int is_time =
      strncmp(answer, "seconds ", 8) == 0 && !answer[8 + strspn(answer + 8, "0123456789.eE+-")];
  time->seconds = is_time ? strtod(answer + 8, &end) : -1;
  /* Nobody takes less than no time, or longer than until the answer is here. */
  if (*end || !(time->seconds > 0) || time->seconds > time->answer) {
    return give_up_nonsense(p, request, answer);
  }
  return 0;
}

/* Whether a thread of the process runs or wants to: the clock of another process only moves with
 * the system's ticks, the state of its threads is true now. */
static int has_running_thread(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%lld/task", (long long)pid);
  DIR *tasks = opendir(path);
  int is_running = 0;
  for (struct dirent *task = tasks ? readdir(tasks) : NULL; task && !is_running;
       task = readdir(tasks)) {
    char stat_path[400], text[256];
    snprintf(stat_path, sizeof stat_path, "%s/%.300s/stat", path, task->d_name);
    FILE *file = task->d_name[0] == '.' ? NULL : fopen(stat_path, "r");
    if (!file) {
      continue;
    }
    size_t n = fread(text, 1, sizeof text - 1, file);
    text[n] = '\0';
    const char *name_end = strrchr(text, ')');
    is_running = name_end && name_end[1] && name_end[2] == 'R';
    fclose(file);
  }
  if (tasks) {
    closedir(tasks);
  }
  return is_running;
}

void peer_calm(peer *p) {
  if (p->state != PEER_READY || p->is_stopped) {
    return;
  }
  const struct timespec step = {.tv_nsec = CALM_STEP_NANOSECONDS};
  double end = machine_seconds() + (p->is_restless ? 0 : CALM_SECONDS);
  for (int n_calm = 0; n_calm < 2;) {
    nanosleep(&step, NULL);
    n_calm = has_running_thread(p->pid) ? 0 : n_calm + 1;
    if (n_calm == 0 && machine_seconds() > end) {
      p->is_restless = 1;
      p->is_stopped = kill(-p->group, SIGSTOP) == 0;
      return;
    }
  }
}

/* Not through a mapping, which kills the tool where the file has become too short. Returns 0 or -1.
 */
static int move_bytes(int fd, int is_write, void *bytes, size_t size_bytes, size_t offset) {
  char *next = bytes;
  while (size_bytes > 0) {
    ssize_t n = is_write ? pwrite(fd, next, size_bytes, (off_t)offset)
                         : pread(fd, next, size_bytes, (off_t)offset);
    if (n == 0 || (n < 0 && errno != EINTR)) {
      return -1;
    }
    size_t moved = n > 0 ? (size_t)n : 0;
    next += moved;
    offset += moved;
    size_bytes -= moved;
  }
  return 0;
}

int peer_fetch_out(peer *p, const peer_data *data) {
  char answer[sizeof p->buffer];
  size_t size_bytes = data->n_out * sizeof(float);
  memset(p->out, 0xff, size_bytes);
  if (move_bytes(data->fd, 1, p->out, size_bytes, data->out_offset)) {
    give_up(p, "its file cannot be written");
    return -1;
  }
  if (ask(p, "out\n", answer)) {
    return -1;
  }
  if (strcmp(answer, "ok") != 0) {
    return give_up_nonsense(p, "out", answer);
  }
  if (move_bytes(data->fd, 0, p->out, size_bytes, data->out_offset)) {
    give_up(p, "it cut its file short");
    return -1;
  }
  return 0;
}
