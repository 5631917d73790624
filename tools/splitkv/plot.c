/* SPDX-License-Identifier: Apache-2.0 */
#include "plot.h"

#include "table.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Starts gnuplot with one argument. What is written to *script is its standard input; what it
 * prints goes nowhere. Returns 0 or an errno. */
static int start_gnuplot(const char *argument, FILE **script, pid_t *pid) {
  int ends[2];
  if (pipe(ends)) {
    return errno;
  }
  char name[] = "gnuplot", copy[16];
  snprintf(copy, sizeof copy, "%s", argument);
  char *const arguments[] = {name, copy, NULL};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  int failed = posix_spawnp(pid, name, &actions, NULL, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[0]);
  *script = failed ? NULL : fdopen(ends[1], "w");
  if (!*script) {
    close(ends[1]);
  }
  return failed;
}

/* Ends its input and waits. Returns 0 when all went well. */
static int finish_gnuplot(FILE *script, pid_t pid) {
  int status = 0;
  int failed = !script || fclose(script) != 0;
  failed |= waitpid(pid, &status, 0) != pid;
  return failed || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

int plot_is_possible(const char *path) {
  FILE *script = NULL;
  pid_t pid = 0;
  if (start_gnuplot("--version", &script, &pid) || finish_gnuplot(script, pid)) {
    return tool_unsupported("--plot %s: needs the program gnuplot, which is not installed "
                            "(Debian, Ubuntu: apt-get install gnuplot-nox)",
                            path);
  }
  return tool_check_writable("--plot", path);
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

static void print_script(FILE *script, const char *path, const char *title, const plot_bar *bars,
                         size_t n_bars) {
  fprintf(script, "set terminal svg noenhanced size %zu,640 font 'sans,13' background 'white'\n",
          240 + 62 * n_bars);
  fputs("set output ", script);
  print_quoted(script, path);
  fputs("\nset title ", script);
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

int plot_bars(const char *path, const char *title, const plot_bar *bars, size_t n_bars) {
  /* gnuplot may end early; that must not end this program. */
  struct sigaction ignore = {0}, before;
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &before);
  FILE *script = NULL;
  pid_t pid = 0;
  int failed = start_gnuplot("-", &script, &pid) != 0;
  if (!failed) {
    if (script) {
      print_script(script, path, title, bars, n_bars);
    }
    failed = finish_gnuplot(script, pid);
  }
  sigaction(SIGPIPE, &before, NULL);
  return failed ? tool_unsupported("--plot %s: gnuplot failed", path) : TOOL_OK;
}
