/* SPDX-License-Identifier: Apache-2.0 */
#include "plot.h"

#include "array.h"
#include "table.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* A gnuplot that runs: what is written to *script it reads, what it prints comes out of `picture`.
 * Its own `set output` could start a shell, and would not notice a full disk. */
typedef struct gnuplot {
  pid_t pid;
  FILE *script;
  int picture; /* descriptor */
} gnuplot;

/* A pipe whose ends no other program inherits. Returns 0 or an errno. */
static int open_pipe(int ends[2]) {
  if (pipe(ends)) {
    return errno;
  }
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  return 0;
}

/* Starts the program with these ends as its standard input and output. This program ignores
 * SIGPIPE while it draws; gnuplot must not. Returns 0 or an errno. */
static int spawn_gnuplot(const char *argument, int input, int output, pid_t *pid) {
  char name[] = "gnuplot", copy[16];
  snprintf(copy, sizeof copy, "%s", argument);
  char *const arguments[] = {name, copy, NULL};
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  int failed = posix_spawnp(pid, name, &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return failed;
}

/* Returns 0 or an errno. After 0 finish_gnuplot is due. */
static int start_gnuplot(gnuplot *g, const char *argument) {
  int script[2], picture[2];
  int failed = open_pipe(script);
  if (failed) {
    return failed;
  }
  failed = open_pipe(picture);
  if (failed) {
    close(script[0]);
    close(script[1]);
    return failed;
  }
  failed = spawn_gnuplot(argument, script[0], picture[1], &g->pid);
  close(script[0]);
  close(picture[1]);
  g->picture = picture[0];
  g->script = failed ? NULL : fdopen(script[1], "w");
  if (!g->script) {
    close(script[1]);
  }
  if (failed) {
    close(picture[0]);
  }
  return failed;
}

/* Ends the script. Returns 0 when all of it was written. */
static int end_script(gnuplot *g) {
  int failed = !g->script || fclose(g->script) != 0;
  g->script = NULL;
  return failed;
}

/* Ends its input, takes what it still prints, and waits. Returns 0 when it went well. */
static int finish_gnuplot(gnuplot *g) {
  char rest[256];
  ssize_t n = 1;
  int status = 0;
  if (g->script) {
    fclose(g->script);
  }
  while (n > 0 || (n < 0 && errno == EINTR)) {
    n = read(g->picture, rest, sizeof rest);
  }
  close(g->picture);
  while (waitpid(g->pid, &status, 0) < 0) {
    if (errno != EINTR) {
      return -1;
    }
  }
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* What gnuplot prints, to the output. Returns the number of bytes, 0 where gnuplot printed none, or
 * -1, with a message, when they cannot be written. */
static int64_t copy_picture(gnuplot *g, output_file *output, file_error *error) {
  int64_t n_bytes = 0;
  for (;;) {
    char block[16384];
    ssize_t n = read(g->picture, block, sizeof block);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return n_bytes;
    }
    if (!output_write(output, block, (size_t)n, error)) {
      return -1;
    }
    n_bytes += n;
  }
}

int plot_is_possible(const char *path) {
  gnuplot g;
  if (start_gnuplot(&g, "--version") || finish_gnuplot(&g)) {
    return tool_unsupported("--plot %s: needs the program gnuplot, which is not installed "
                            "(Debian, Ubuntu: apt-get install gnuplot-nox)",
                            path);
  }
  return TOOL_OK;
}

/* In gnuplot's single quotes, where only a quote is special. */
static void print_quoted(FILE *script, const char *text) {
  fputc('\'', script);
  for (; *text; text++) {
    fputc((unsigned char)*text < 0x20 ? '?' : *text, script);
    if (*text == '\'') {
      fputc('\'', script);
    }
  }
  fputc('\'', script);
}

/* In gnuplot's double quotes, inside a data block. */
static void print_name(FILE *script, const char *text) {
  fputc('"', script);
  for (; *text; text++) {
    fputc(*text == '"' || *text == '\\' || (unsigned char)*text < 0x20 ? '?' : *text, script);
  }
  fputc('"', script);
}

static void print_data(FILE *script, const plot_bar *bars, size_t n_bars) {
  fputs("$bars << EOD\n", script);
  for (size_t i = 0; i < n_bars; i++) {
    char time[32];
    table_time_text(bars[i].time, time, sizeof time);
    print_name(script, bars[i].name);
    fprintf(script, " %.6f %d \"%.0f%%, %s\"\n", bars[i].roof_fraction, bars[i].is_compute_bound,
            100 * bars[i].roof_fraction, time);
  }
  fputs("EOD\n", script);
}

static void print_script(FILE *script, const char *title, const plot_bar *bars, size_t n_bars) {
  fprintf(script, "set terminal svg noenhanced size %zu,640 font 'sans,13' background 'white'\n",
          240 + 62 * n_bars);
  fputs("set title ", script);
  print_quoted(script, title);
  fputs("\nset ylabel 'fraction of the roof'\n"
        "set yrange [0:1]\n"
        "set ytics 0.1\n"
        "set grid ytics linecolor rgb '#dddddd'\n"
        "set style fill solid\n"
        "set boxwidth 0.7\n"
        "set xtics rotate by -40 nomirror\n"
        "set key top right outside\n",
        script);
  fprintf(script, "set xrange [-0.6:%.1f]\n", (double)n_bars - 0.4);
  print_data(script, bars, n_bars);
  /* A bar above the roof ends at it; its label says how far it went. */
  fputs("clip(x) = x > 1 ? 1 : x\n"
        "plot $bars using 0:($3 == 0 ? clip($2) : NaN):xtic(1) with boxes "
        "linecolor rgb '#4477aa' title 'memory bound', "
        "$bars using 0:($3 == 1 ? clip($2) : NaN) with boxes "
        "linecolor rgb '#cc6677' title 'compute bound', "
        "$bars using 0:(0.02):4 with labels left rotate by 90 textcolor rgb 'white' notitle\n",
        script);
}

/* Draws into the output and puts it in place. */
static int draw(const char *path, const char *title, const plot_bar *bars, size_t n_bars,
                output_file *output) {
  gnuplot g;
  file_error error;
  if (start_gnuplot(&g, "-")) {
    return tool_unsupported("--plot %s: gnuplot cannot be started", path);
  }
  if (g.script) {
    print_script(g.script, title, bars, n_bars);
  }
  int failed = end_script(&g);
  int64_t n_bytes = copy_picture(&g, output, &error);
  failed |= finish_gnuplot(&g);
  if (n_bytes < 0) {
    return tool_file_error("--plot", path, &error);
  }
  if (failed || n_bytes == 0) {
    return tool_unsupported("--plot %s: gnuplot failed", path);
  }
  return output_flush(output, &error) && output_commit(output, &error)
             ? TOOL_OK
             : tool_file_error("--plot", path, &error);
}

int plot_bars(const char *path, const char *title, const plot_bar *bars, size_t n_bars) {
  output_file output;
  file_error error;
  if (!output_create(path, &output, &error)) {
    return tool_file_error("--plot", path, &error);
  }
  /* gnuplot may end early; that must not end this program. */
  struct sigaction ignore = {0}, before;
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &before);
  int status = draw(path, title, bars, n_bars, &output);
  sigaction(SIGPIPE, &before, NULL);
  output_abandon(&output);
  return status;
}
