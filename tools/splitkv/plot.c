/* SPDX-License-Identifier: Apache-2.0 */
#include "plot.h"

#include "table.h"
#include "tool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

int plot_is_possible(const char *path) {
  int status = system("command -v gnuplot >/dev/null 2>&1");
  if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return tool_unsupported("--plot %s: needs the program gnuplot, which is not installed "
                            "(Debian, Ubuntu: apt-get install gnuplot-nox)",
                            path);
  }
  FILE *file = fopen(path, "w");
  if (!file || fclose(file)) {
    return tool_usage_error("--plot %s: cannot be written: %s", path, strerror(errno));
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
  void (*old_handler)(int) = signal(SIGPIPE, SIG_IGN);
  FILE *script = popen("gnuplot", "w");
  int status = -1;
  if (script) {
    print_script(script, path, title, bars, n_bars);
    status = pclose(script);
  }
  signal(SIGPIPE, old_handler);
  if (status != 0) {
    return tool_unsupported("--plot %s: gnuplot failed", path);
  }
  return TOOL_OK;
}
